"""What differs between two catalogues, in their own words: prices, services, plans, whatever stands in the files.

The files are compared as they are written, price lists and zone files row by row, so nothing that can be written is
left out. Where two prices or amounts differ, it is said by how many percent.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Final

from balance.model import Unit
from occ.rating.catalogue import catalogue_files, load_catalogue
from occ.rating.csv_file import read_rows
from occ.rating.currency import parse_amount
from occ.rating.plans import BY_DESTINATION, BY_NETWORK, PRICES_FROM
from occ.rating.price_list import read_price_list
from occ.rating.sizes import SIZES, parse_size, single_value
from occ.rating.zone_file import RESERVED
from occ.yamlmap import ConfigError, Node, load_yaml

__all__ = ["Change", "changes"]

Tree = str | dict[str, "Tree"]

_PRICE: Final = re.compile(r"(\S+) per (.+)")
_IN_ORDER: Final = ("services", "promotions")
"""Sections of which the first that fits counts."""
_LONGEST: Final = 160


@dataclass(frozen=True, slots=True)
class Change:
    """One difference."""

    path: str
    """Dotted, as messages name places: ``plans.standard.sms``."""
    before: str
    """Empty: it is new."""
    after: str
    """Empty: it is gone."""
    more: Fraction | None = None
    """By which part of itself a price or an amount rises; below 0: it falls. None where that cannot be said."""

    @property
    def percent(self) -> str:
        """'+20 %', '-5.6 %': to a tenth; empty where that cannot be said."""
        if self.more is None:
            return ""
        tenths = round(self.more * 1000)
        digits = f"{abs(tenths) // 10}.{abs(tenths) % 10}".removesuffix(".0")
        return f"{'-' if tenths < 0 else '+'}{digits} %"

    def __str__(self) -> str:
        if not self.before:
            return f"{self.path}: new, {self.after}"
        if not self.after:
            return f"{self.path}: gone, was {self.before}"
        percent = f" ({self.percent})" if self.more else " (the same)" if self.more is not None else ""
        return f"{self.path}: {self.before} -> {self.after}{percent}"


def changes(old: Path, new: Path) -> list[Change]:
    """What has changed from one catalogue to another, in the order of the new one. Raises ConfigError for either."""
    for path in (old, new):
        load_catalogue(path)
    before, after = _tree_of(old), _tree_of(new)
    found = list(_differences("", before, after))
    for section in _IN_ORDER:
        was, now = before.get(section), after.get(section)
        if isinstance(was, dict) and isinstance(now, dict):
            kept, kept_now = [name for name in was if name in now], [name for name in now if name in was]
            if kept != kept_now:
                found.append(
                    Change(f"{section}, the order in which they are tried", ", ".join(kept), ", ".join(kept_now))
                )
    return found


def _differences(path: str, before: Tree, after: Tree) -> Iterator[Change]:
    if isinstance(before, dict) and isinstance(after, dict):
        for name in (*after, *(name for name in before if name not in after)):
            inner = f"{path}.{name}" if path else name
            if name not in before:
                yield Change(inner, "", _text(after[name]))
            elif name not in after:
                yield Change(inner, _text(before[name]), "")
            else:
                yield from _differences(inner, before[name], after[name])
    elif before != after:
        more = _more(before, after) if isinstance(before, str) and isinstance(after, str) else None
        yield Change(path, _text(before), _text(after), more)


def _text(tree: Tree) -> str:
    text = (
        tree if isinstance(tree, str) else "{" + ", ".join(f"{key}: {_text(each)}" for key, each in tree.items()) + "}"
    )
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def _more(before: str, after: str) -> Fraction | None:
    was, now = _figure(before), _figure(after)
    if was is None or now is None or was[0] != now[0] or not was[1]:
        return None
    return now[1] / was[1] - 1


def _figure(written: str) -> tuple[Unit, Fraction] | None:
    """What a price is for one unit, or a size in units, or an amount of money; None for anything else."""
    price = _PRICE.fullmatch(written)
    size = price.group(2) if price is not None else written
    for unit, words in SIZES.items():
        if size.rpartition(" ")[2] in words:
            try:
                units = parse_size(size, unit)
                return unit, Fraction(parse_amount(price.group(1)), units) if price is not None else Fraction(units)
            except ValueError:
                return None
    try:
        return Unit.MONEY, Fraction(parse_amount(written))
    except ValueError:
        return None


# -- what is written -------------------------------------------------------------------------------------------------


def _tree_of(path: Path) -> dict[str, Tree]:
    """All that a catalogue says, the sections of its files together."""
    merged: dict[str, Tree] = {}
    for file in catalogue_files(path):
        for key, value in load_yaml(file).table():
            section = _tree(key.text(), value)
            known = merged.get(key.text())
            if isinstance(known, dict) and isinstance(section, dict):
                known.update(section)
            else:
                merged[key.text()] = section
    return merged


def _tree(name: str, node: Node) -> Tree:
    """``name``: the key that the value belongs to, which says what the columns of a price list in it are."""
    word = single_value(node)
    if word is not None:
        return word
    try:
        pairs = node.table()
    except ConfigError:
        return _listed(node)
    found: dict[str, Tree] = {}
    for key, value in pairs:
        written = key.text()
        if written == PRICES_FROM:
            column = "zone" if name in (BY_DESTINATION, BY_NETWORK) else "service"
            found |= {each: _tree(each, row.price) for each, row in read_price_list(value, column).items()}
        elif written == RESERVED and name in ("destinations", "networks"):
            found[RESERVED] = _rows(value)
        else:
            found[written] = _tree(written, value)
    return found


def _listed(node: Node) -> Tree:
    """A list: its words, or its mappings by their names."""
    items = node.items()
    words = [single_value(item) for item in items]
    if all(word is not None for word in words):
        return f"[{', '.join(word or '' for word in words)}]"
    found: dict[str, Tree] = {}
    for number, item in enumerate(items, 1):
        tree = _tree("", item)
        name = tree.get("name") if isinstance(tree, dict) else None
        found[name if isinstance(name, str) else str(number)] = tree
    return found


def _rows(node: Node) -> dict[str, Tree]:
    """The rows of zone files, by their keys."""
    found: dict[str, Tree] = {}
    for item in [node] if single_value(node) is not None else node.items():
        _, rows = read_rows(item)
        heading = [cell.strip().lower() for cell in next(rows)[1]]
        at = next(index for index, name in enumerate(heading) if name in ("prefix", "network"))
        for _, cells in rows:
            found[cells[at].strip()] = ", ".join(cell.strip() for index, cell in enumerate(cells) if index != at)
    return found
