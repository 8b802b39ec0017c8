"""The command ``occ decode``: Diameter messages for people, and what is wrong with them."""

import json
import sys
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.text import Text

from occ.cli_shell import RefusedError, WrongUsageError, console, text_of
from occ.decode.document import caught_text, message_document
from occ.decode.messages import decoded
from occ.decode.names import application_name, counted, vendor_name
from occ.decode.source import LARGEST_INPUT, InputError, read, read_text
from occ.decode.streams import PORTS, Streams
from occ.decode.tree import Branch, DecodedMessage, Kind, Node, Relation, Remark

REMARKED: Final = 3
"""Exit code of ``--strict``."""

STANDARD_INPUT: Final = "-"
LONGEST_VALUE: Final = 1000
"""Letters of a value that are shown; JSON has all."""

_STYLES: Final = {Kind.ERROR: "bold red", Kind.BREACH: "red", Kind.TOLERATED: "yellow", Kind.NOTE: "cyan"}
_WIDEST_KIND: Final = max(len(kind.value) for kind in Kind)

#: A piece of a line and its style.
Span = tuple[str, str]


def decode(
    given: Annotated[
        list[str],
        typer.Argument(
            metavar="HEX|FILE",
            help="Hexadecimal digits, however they are spaced; or a file that holds such text or a dump, raw octets, "
            "or a capture (pcap, pcapng); '-' for standard input.",
        ),
    ],
    port: Annotated[
        list[int] | None,
        typer.Option(
            min=1, max=65535, help="Another port of Diameter in a capture, beside 3868 and 5868; can be repeated."
        ),
    ] = None,
    only_remarks: Annotated[bool, typer.Option("--only-remarks", help="Leave out messages without remarks.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 3 if anything is remarked that is more than a note.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document per message and line.")] = False,
) -> None:
    """Print Diameter messages readably, with remarks on what is wrong with each and what the server would answer.

    Rows and facts about clients that remarks name are those of docs/conformance.md.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # clients may send letters that the terminal does not have
    streams = _read(given, PORTS | frozenset(port or ()))
    messages = decoded(streams)
    shown = [message for message in messages if message.remarks or not only_remarks]
    if as_json:
        for message in shown:
            sys.stdout.write(json.dumps(message_document(message)) + "\n")
    else:
        print_messages(shown)
        if only_remarks and not shown:
            sys.stdout.write(f"No remarks on {counted(len(messages), 'message')}.\n")
    sys.stdout.flush()
    for note in streams.notes:
        typer.echo(f"occ: {note}", err=True)
    if strict and any(remark.kind is not Kind.NOTE for message in messages for remark in message.remarks):
        raise typer.Exit(REMARKED)


# -- input -------------------------------------------------------------------------------------------------------


def _read(given: list[str], ports: frozenset[int]) -> Streams:
    """The messages in what the command line names. Raises RefusedError, WrongUsageError."""
    name = given[0]
    try:
        if given == [STANDARD_INPUT]:
            name = "standard input"
            return read(_bounded(sys.stdin.buffer.read(LARGEST_INPUT + 1), name), ports)
        path = _file(given[0])
        if path is None:
            return _from_arguments(given, ports)
        if len(given) > 1:
            raise WrongUsageError("only one file can be read at a time")
        with path.open("rb") as file:
            return read(_bounded(file.read(LARGEST_INPUT + 1), name), ports)
    except InputError as error:
        raise RefusedError(f"nothing can be read from {name}: {error}") from error


def _file(name: str) -> Path | None:
    """The file of that name, if there is one. Raises RefusedError for a directory."""
    try:
        path = Path(name)
        if name and path.is_dir():
            raise RefusedError(f"{name} is a directory; name a file in it")
        return path if name and path.exists() else None
    except (OSError, ValueError):  # too long for a name, or not a name at all: then it is digits
        return None


def _from_arguments(given: list[str], ports: frozenset[int]) -> Streams:
    """The messages in digits that stand on the command line itself."""
    text = " ".join(given)
    try:
        return read_text(text, ports)
    except InputError as error:
        shown = text if len(text) <= 40 else f"{text[:40]}..."
        raise RefusedError(f"{shown!r} is neither a file nor the hexadecimal digits of a message: {error}") from error


def _bounded(octets: bytes, name: str) -> bytes:
    if len(octets) > LARGEST_INPUT:
        raise RefusedError(f"{name} has more than {LARGEST_INPUT >> 20} MiB; cut it with editcap or tshark first")
    return octets


# -- output ------------------------------------------------------------------------------------------------------


def print_messages(messages: list[DecodedMessage], where: str = "") -> None:
    """To a terminal in colours, else as plain text, which is much faster. ``where``: ends the first line of each."""
    out = console()
    for index, message in enumerate(messages):
        lines = list(_lines(message))
        if where:
            lines[0].append((where, "dim"))
        if index:
            lines.insert(0, [])
        if out.is_terminal:
            for line in lines:
                out.print(Text.assemble(*line), soft_wrap=True)
        else:
            sys.stdout.write("".join("".join(text for text, _ in line) + "\n" for line in lines))


def _lines(message: DecodedMessage) -> Iterator[list[Span]]:
    yield [(_where(message), "dim")]
    application = application_name(message.application)
    known = f" ({application})" if application else ""
    flags = " ".join(message.flag_words) or "no flags"
    yield [
        (f"{message.name} ({message.command})", "bold"),
        (f"  {flags}  application {message.application}{known}", ""),
    ]
    version = f"  version {message.version}" if message.version != 1 else ""
    yield [
        (f"hop-by-hop {message.hop_by_hop:#010x}  end-to-end {message.end_to_end:#010x}  ", ""),
        (f"{message.length} octets{version}", ""),
    ]
    if message.answer is not None:
        yield [(f"answered by message {_relation(message.answer)}", "")]
    if message.request is not None:
        yield [(f"answers message {_relation(message.request)}", "")]
    yield from _tree(message, 1)
    yield from _remarks(message.remarks)


def _where(message: DecodedMessage) -> str:
    found = message.found
    parts = [f"Message {message.number}"]
    if found.time_ns is not None:
        parts.append(caught_text(found.time_ns).replace("T", " "))
    if found.flow is not None:
        parts.append(f"{found.flow.source} -> {found.flow.destination}")
        parts.append(f"{found.flow.transport}, packet {found.packet}")
    if found.lost:
        parts.append(f"before it {counted(found.lost, 'octet')} not in the capture")
    if found.skipped:
        parts.append(f"before it {counted(found.skipped, 'octet')} skipped")
    return "  ".join(parts)


def _relation(relation: Relation) -> str:
    if relation.delay_ns is None:
        return str(relation.number)
    microseconds = relation.delay_ns // 1000
    sign = "-" if microseconds < 0 else ""
    return f"{relation.number} after {sign}{abs(microseconds) // 1000}.{abs(microseconds) % 1000:03d} ms"


def _tree(branch: Branch, depth: int) -> Iterator[list[Span]]:
    indent = "  " * depth
    for node in branch.members:
        yield [(indent, ""), *_avp(node)]
        yield from _tree(node, depth + 1)
    if branch.rest:
        yield [(f"{indent}unreadable: 0x{branch.rest.hex()}"[:LONGEST_VALUE], "red")]


def _avp(node: Node) -> Iterator[Span]:
    vendor = f", {vendor_name(node.vendor)}" if node.vendor else ""
    flags = f" {node.flag_letters}" if node.flag_letters else ""
    yield node.name, "bold" if node.is_group else ""
    yield f" ({node.code}{vendor}){flags}", "dim"
    value = text_of(node.shown().encode())
    if len(value) > LONGEST_VALUE:
        value = f"{value[:LONGEST_VALUE]}... ({len(node.data)} octets)"
    if value:
        yield f": {value}", ""


def _remarks(remarks: list[Remark]) -> Iterator[list[Span]]:
    if not remarks:
        yield [("No remarks.", "green")]
        return
    yield [("Remarks:", "bold")]
    for remark in remarks:
        source = f" [{remark.source}]" if remark.source else ""
        text = text_of(remark.text.encode())
        yield [(f"  {remark.kind.value:<{_WIDEST_KIND}}  ", _STYLES[remark.kind]), (text, ""), (source, "dim")]
