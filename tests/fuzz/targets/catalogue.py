"""Octets as a catalogue in YAML: it is read, or one sentence says where and why not."""

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from occ.rating.catalogue import read_catalogue
from occ.yamlmap import ConfigError, parse_yaml


@cache
def _nowhere() -> Path:
    """A folder without files, which a catalogue may name."""
    return Path(mkdtemp(prefix="occ-fuzz-"))


def run(octets: bytes) -> None:
    text = octets.decode("utf-8", "replace")
    try:
        root = parse_yaml(text, "catalogue.yaml", _nowhere())
        catalogue = read_catalogue(root, texts=[text])
    except ConfigError as error:
        assert "\n" not in str(error)
        return
    assert catalogue.plans
    assert catalogue.version
