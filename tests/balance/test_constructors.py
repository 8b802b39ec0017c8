"""Constructors that are written out, so that they can be compiled, take and set what their classes have, in order."""

import inspect
import re
from dataclasses import fields, is_dataclass
from types import ModuleType

import pytest

from balance import accounts, model, plans
from occ import services
from protocols.credit_control import answer_model
from protocols.credit_control import model as request_model
from protocols.diameter.assembly import Copied
from tests.plain import PLAIN_ONLY

MODULES = (model, accounts, plans, services, request_model, answer_model)


def written_out(module: ModuleType) -> list[type]:
    own = (each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == module.__name__)
    return [each for each in own if is_dataclass(each)]


@PLAIN_ONLY
@pytest.mark.parametrize("kind", [each for at in MODULES for each in written_out(at)])
def test_every_field_is_taken(kind: type) -> None:
    taken = list(inspect.signature(kind).parameters)
    assert taken == [each.name for each in fields(kind) if each.init]
    source = inspect.getsource(kind)
    if "def __init__" in source and ".__init__(" not in source:
        for each in fields(kind):
            assert re.search(rf"self\.{each.name}\b[^=\n]* = ", source), each.name


@PLAIN_ONLY
@pytest.mark.parametrize("kind", [each for each in written_out(request_model) if issubclass(each, Copied)])
def test_every_field_is_copied(kind: type) -> None:
    source = inspect.getsource(kind)
    copied = re.findall(r"^ +self\.(\w+),$", source[source.index("def copy") :], re.MULTILINE)
    assert copied == [each.name for each in fields(kind)]
