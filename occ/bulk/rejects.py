"""Files of rejected rows: as the input has them, with line and reason in front, to be mended and imported again."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Final

from occ.bulk.files import KEPT_OF_LONG_LINE, Source, cells_for_people, guarded, read_csv, read_lines, unguarded
from occ.bulk.reading import UNREADABLE
from occ.bulk.rows import IGNORED, plain_name
from occ.bulk.spool import Spool
from occ.yamlmap import ConfigError, shown

MARK: Final = ".rejected"


def reject_paths(sources: list[Source], told: Path | None) -> list[Path]:
    """Where the rejected rows of each file go: beside it, or where the user said. Raises ConfigError."""
    if told is None:
        paths = [_beside(source.path, source.path.parent) for source in sources]
    elif len(sources) == 1 and not told.is_dir():
        paths = [told]
    else:
        if told.exists() and not told.is_dir():
            raise ConfigError("--rejects", None, "name a folder for the rejected rows of several files")
        paths = [_beside(source.path, told) for source in sources]
    inputs = {source.path.resolve() for source in sources}
    for path in paths:
        if path.resolve() in inputs or paths.count(path) > 1:
            raise ConfigError(
                "--rejects", None, f"the rejected rows would overwrite {shown(path)}; name another place for them"
            )
    return paths


def _beside(path: Path, folder: Path) -> Path:
    """ "accounts.rejected.csv" for "accounts.csv"."""
    return folder / f"{path.stem}{MARK}{path.suffix}"


def write_rejects(source: Source, spool: Spool, path: Path) -> int:
    """Write the rejected rows of a file, if there are any; how many. A file is there whole or not at all."""
    rejected = spool.rejected(source.index)
    first = next(rejected, None)
    if first is None:
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        if source.encoding != "utf-8":
            stream.write("\ufeff")  # so that spreadsheets take it for what it is
        written = _write(source, stream, _chain(first, rejected))
    part.replace(path)
    return written


def _chain(first: tuple[int, str], rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield first
    yield from rest


def _write(source: Source, stream: IO[str], rejected: Iterator[tuple[int, str]]) -> int:
    count = 0
    if source.kind is None:
        lines = ((line.number, line.text) for line in read_lines(source))
        for number, reason, text in _joined(lines, rejected):
            stream.write(f"{_json_text(_json_reject(number, reason, text))}\n")
            count += 1
        return count
    kept = [at for at, name in enumerate(source.heading) if plain_name(name) not in IGNORED]
    table = csv.writer(stream, delimiter=source.delimiter, lineterminator="\n")
    table.writerow([*IGNORED, *(source.heading[at] for at in kept)])
    records = ((record.line, record.text) for record in read_csv(source))
    for number, reason, text in _joined(records, rejected):
        cells = cells_for_people(text, source.delimiter)
        row = [cells[at] if at < len(cells) else "" for at in kept]
        beyond = cells[len(source.heading) :]
        table.writerow([number, guarded(reason), *(guarded(unguarded(cell)) for cell in (*row, *beyond))])
        count += 1
    return count


def _joined(rows: Iterator[tuple[int, str]], rejected: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str, str]]:
    """The rejected ones among the rows, both by line: line, reason, text."""
    wanted = next(rejected, None)
    for number, text in rows:
        if wanted is None:
            return
        if number == wanted[0]:
            yield number, wanted[1], text
            wanted = next(rejected, None)


def _json_reject(number: int, reason: str, text: str) -> dict[str, Any]:
    document: dict[str, Any] = {"line": number, "reason": reason}
    try:
        found = json.loads(text, parse_float=str)
    except (ValueError, RecursionError):
        found = None
    if isinstance(found, dict):
        return {**document, **{key: value for key, value in found.items() if key not in IGNORED}}
    return {**document, UNREADABLE: text if len(text) <= KEPT_OF_LONG_LINE * 10 else text[:KEPT_OF_LONG_LINE]}


def _json_text(document: dict[str, Any]) -> str:
    text = json.dumps(document, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # octets that are no text, or half a character
        return json.dumps(document)
    return text
