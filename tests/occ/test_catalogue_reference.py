"""docs/catalogue.md: its examples together are a catalogue that says all that can be said, and so does the schema."""

import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastjsonschema
import pytest
import yaml

from occ.rating import allowances, criteria, numbering, offers, plans, service, written_price, written_promotions
from occ.rating.catalogue import MANY_PLACES, ONE_PLACE, load_catalogue
from occ.rating.schema import SECTIONS, catalogue_schema
from occ.yamlmap import ConfigError

PROJECT = Path(__file__).parents[2]
REFERENCE = PROJECT / "docs" / "catalogue.md"
_BLOCK = re.compile(r"^```(yaml|csv)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def write_examples(folder: Path) -> Path:
    """The examples as the files of a folder."""
    for number, (kind, name, content) in enumerate(_BLOCK.findall(REFERENCE.read_text()), 10):
        (folder / (name or f"{number}.{kind}")).write_text(content)
    return folder


class _PlainLoader(yaml.SafeLoader):
    """YAML as editors read it (YAML 1.2): dates, and times of day, are text."""


_PlainLoader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith((":timestamp", ":int", ":float"))]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"-?(?:0|[1-9][0-9]*)$"), list("-0123456789"))
_PlainLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?[0-9]+\.[0-9]+$"), list("-0123456789"))


def documents(folder: Path) -> list[Any]:
    return [yaml.load(file.read_text(), _PlainLoader) for file in sorted(folder.glob("*.yaml"))]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_examples(tmp_path_factory.mktemp("catalogue"))


@pytest.fixture(scope="module")
def accepts() -> Callable[[object], bool]:
    """Whether a document is one by the schema, which has no keyword that came after draft 7."""
    validate = fastjsonschema.compile(catalogue_schema())

    def accepts(document: object) -> bool:
        try:
            validate(document)
        except fastjsonschema.JsonSchemaValueException:
            return False
        return True

    return accepts


def test_the_examples_are_a_catalogue(examples: Path) -> None:
    catalogue = load_catalogue(examples)
    assert re.fullmatch(r"example-1 \([0-9a-f]{8}\)", catalogue.edition)
    assert set(catalogue.plans) == {"standard", "heavy", "abroad"}
    assert len(catalogue.promotions.all) == 6


def test_the_examples_leave_nothing_out(examples: Path) -> None:
    """Every section and key that the readers know stands in the examples."""
    written: set[str] = set()

    def collect(value: object) -> None:
        if isinstance(value, dict):
            written.update(map(str, value))
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)

    for document in documents(examples):
        collect(document)
    known = {*ONE_PLACE, *MANY_PLACES, *service.REQUIRED, *service.OPTIONAL, *plans.PLAN_WORDS}
    known |= {*written_price.PRICE_KEYS, *allowances.ALLOWANCE_KEYS, *allowances.BONUS_KEYS, *offers.OFFER_KEYS}
    known |= {*written_promotions.PROMOTION_KEYS, *written_promotions.WHEN_KEYS, *numbering._KEYS}
    assert known - written == set()


@pytest.mark.parametrize("source", ["examples", "sample"])
def test_the_schema_takes_what_the_readers_take(source: str, examples: Path, accepts: Callable[[object], bool]) -> None:
    files = documents(examples) if source == "examples" else documents(PROJECT / "config")[:1]
    assert files
    for document in files:
        assert accepts(document)


def objects(schema: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield path, schema
        for key, value in schema.items():
            yield from objects(value, (*path, key))
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from objects(value, (*path, str(index)))


def test_the_schema_knows_the_keys_that_the_readers_know() -> None:
    properties = {path: set(each.get("properties", ())) for path, each in objects(catalogue_schema())}
    found = list(properties.values())
    for keys in (
        (*ONE_PLACE, *MANY_PLACES),
        (*service.REQUIRED, *service.OPTIONAL),
        written_price.PRICE_KEYS,
        allowances.ALLOWANCE_KEYS,
        allowances.BONUS_KEYS,
        offers.OFFER_KEYS,
        written_promotions.PROMOTION_KEYS,
        written_promotions.WHEN_KEYS,
        numbering._KEYS,
    ):
        assert set(keys) in found
    assert set(plans.PLAN_WORDS) in found
    assert set(SECTIONS) == {*ONE_PLACE, *MANY_PLACES}
    assert set(criteria.ROLES) == set(SECTIONS["services"]["additionalProperties"]["properties"]["role"]["enum"])


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Of every mapping in a document."""
    if isinstance(value, dict):
        yield path
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*path, index))


FREE = {("services",), ("plans",), ("allowances",), ("bonuses",), ("offers",), ("destinations",), ("networks",)}
"""Mappings whose keys are names of one's own."""


def test_the_schema_and_the_readers_refuse_a_key_that_nobody_knows(
    examples: Path, accepts: Callable[[object], bool], tmp_path: Path
) -> None:
    write_examples(tmp_path)
    tried = 0
    for file in sorted(tmp_path.glob("*.yaml")):
        text = file.read_text()
        document = yaml.load(text, _PlainLoader)
        for path in places(document):
            if path in FREE:
                continue
            spoilt = copy.deepcopy(document)
            inner: Any = spoilt
            for step in path:
                inner = inner[step]
            inner["no-such-key"] = "1"
            assert not accepts(spoilt), path
            file.write_text(json.dumps(spoilt))
            with pytest.raises(ConfigError) as caught:
                load_catalogue(tmp_path)
            assert str(caught.value).startswith(str(file)), path
            tried += 1
        file.write_text(text)
    assert tried > 40
    load_catalogue(tmp_path)


@pytest.mark.parametrize(
    ("section", "value"),
    [
        ("currency", "eur"),
        ("services", {"internet": {"context": "x", "unit": "octets", "quota": "10MiB", "validity": "1 h"}}),
        ("services", {"internet": {"context": "x", "unit": "octets", "quota": "10 MiB"}}),
        ("services", {"Internet": {"context": "x", "unit": "octets", "quota": "10 MiB", "validity": "1 h"}}),
        ("plans", {"standard": {"internet": "0,01 per 1 MiB"}}),
        ("plans", {"standard": {"internet": {"8:00": "free"}}}),
        ("allowances", {"data": {"amount": "5 GiB"}}),
        ("offers", {"small": {"every": "year"}}),
        ("promotions", [{"discount": "20 %"}]),
    ],
)
def test_the_schema_refuses_values_of_another_form(
    section: str, value: object, accepts: Callable[[object], bool]
) -> None:
    assert not accepts({section: value})
