"""Octets as a file of policy rules, read beside the sample catalogue: rules, or one sentence that says why not."""

from functools import cache

from occ.policy.reading import parse_policies
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.settings import SHIPPED
from occ.yamlmap import ConfigError


@cache
def _catalogue() -> Catalogue:
    return load_catalogue(SHIPPED / "catalogue.yaml")


def run(octets: bytes) -> None:
    try:
        parse_policies(octets.decode("utf-8", "replace"), "policies.yaml", _catalogue())
    except ConfigError as error:
        assert "\n" not in str(error)
