"""Price lists: the prices of a plan, or those of one service by zone, in a CSV file.

The first row names the columns. In a plan (``prices_from``) they are ``service`` and ``price``, below a service
(``by_destination``, ``by_network``) they are ``zone`` and ``price``::

    zone;price;from
    eu;0.19 per 60 s;
    russia;0.49 per 60 s;08:00
    russia;0.39 per 60 s;20:00
    others;0.99 per 60 s;

``from`` may be left out: a beginning as the catalogue writes it, one row for each. Any other column is what else a
price of the catalogue can say (``connection``, ``minimum``, ...), under the same name; an empty cell says nothing.
"""

from typing import Final, NamedTuple

import yaml

from occ.rating.csv_file import read_rows
from occ.yamlmap import ConfigError, Node, mapping_node, scalar_node

__all__ = ["PriceRow", "read_price_list"]

PRICE: Final = "price"
FROM: Final = "from"


class PriceRow(NamedTuple):
    """What a price list says of one service or zone."""

    key: Node
    """Its name, where it stands first."""
    price: Node
    """Its price or prices, as ``occ.rating.tariff.read_tariff`` reads them from YAML."""


def read_price_list(node: Node, key_column: str) -> dict[str, PriceRow]:
    """The price list that a value of the catalogue names, by service or zone. Raises ConfigError."""
    source, rows = read_rows(node)
    line, heading = next(rows, (1, []))
    columns = _columns(line, heading, key_column, source)
    found: dict[str, list[_Line]] = {}
    for at, cells in rows:
        row = _row(at, cells, columns, key_column, source)
        found.setdefault(row.pop(key_column), []).append((at, row))
    if not found:
        raise ConfigError(source, line, "the price list has no prices")
    return {key: _price(node, source, key, lines) for key, lines in found.items()}


_Line = tuple[int, dict[str, str]]
"""Where a row stands, and its cells that are not empty by the name of their column."""


def _columns(line: int, heading: list[str], key_column: str, source: str) -> list[str]:
    names = [cell.strip().lower() for cell in heading]
    for name in (key_column, PRICE):
        if name not in names:
            raise ConfigError(source, line, f"the first row must name the columns, and {name} is missing there")
    for name in names:
        if not name:
            raise ConfigError(source, line, "a column has no name in the first row")
        if names.count(name) > 1:
            raise ConfigError(source, line, f"the column {name[:60]} stands twice")
    return names


def _row(line: int, cells: list[str], columns: list[str], key_column: str, source: str) -> dict[str, str]:
    if len(cells) > len(columns):
        raise ConfigError(source, line, f"{len(cells)} columns, where the heading has {len(columns)}")
    row = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if cell.strip()}
    for name in (key_column, PRICE):
        if name not in row:
            raise ConfigError(source, line, f"the column {name} is empty")
    return row


def _price(node: Node, source: str, key: str, lines: list[_Line]) -> PriceRow:
    """The rows of one service or zone as the YAML that would say the same."""
    first = lines[0][0]

    def placed(value: yaml.Node) -> Node:
        return Node(value, source, f"{node.path}.{key}", first, node.base, node.files)

    named = placed(scalar_node(key, first))
    if len(lines) == 1 and FROM not in lines[0][1]:
        return PriceRow(named, placed(_cells(*lines[0])))
    beginnings: dict[str, int] = {}
    pairs: list[tuple[yaml.Node, yaml.Node]] = []
    for line, row in lines:
        beginning = row.pop(FROM, "")
        if not beginning:
            raise ConfigError(
                source, line, f"{key} has several prices: name in the column {FROM} when each of them begins"
            )
        if beginning in beginnings:
            raise ConfigError(
                source, line, f"{key} has two prices from {beginning}, the other on line {beginnings[beginning]}"
            )
        beginnings[beginning] = line
        pairs.append((scalar_node(beginning, line), _cells(line, row)))
    return PriceRow(named, placed(mapping_node(pairs, first)))


def _cells(line: int, row: dict[str, str]) -> yaml.Node:
    """The price of one row: its only cell, or a mapping of all."""
    if row.keys() == {PRICE}:
        return scalar_node(row[PRICE], line)
    return mapping_node([(scalar_node(name, line), scalar_node(cell, line)) for name, cell in row.items()], line)
