"""Whatever clients send, the API answers without failing, as its description says, and not without a token."""

import os
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from balance.embedded import EmbeddedRedis
from tests.occ.api_lab import Api
from tests.shell import Shell


def has_not_failed(_: object, response: schemathesis.Response, __: schemathesis.Case[Any]) -> None:
    """503 says that another server does not run, which is so here."""
    assert response.status_code < 500 or response.status_code == 503, response.text


CHECKS = [has_not_failed, status_code_conformance, content_type_conformance, response_schema_conformance]
EXAMPLES = int(os.environ.get("API_EXAMPLES", "2"))
"""Of each operation, allowed and not."""


@pytest.fixture(scope="module")
def api(redis_server: EmbeddedRedis, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    directory = tmp_path_factory.mktemp("api")
    with Api(Shell(directory, redis_server.address), directory) as running:
        running.empty()
        running.shell.json("account", "create", "acc-1", "--balance", "10.00")
        yield running


@pytest.mark.slow
def test_nothing_that_can_be_sent_makes_it_fail(api: Api) -> None:
    schema = schemathesis.openapi.from_url(f"{api.url}/openapi.json")
    tried = 0
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if operation.path.endswith("/reload") or (operation.path.endswith("/hub") and operation.method == "post"):
            continue  # these would wait for servers that do not run, or call addresses that were made up
        for mode in schemathesis.GenerationMode:
            strategy = operation.as_strategy(generation_mode=mode)

            @hypothesis.settings(
                max_examples=EXAMPLES,
                deadline=None,
                database=None,
                derandomize=True,
                suppress_health_check=list(hypothesis.HealthCheck),
            )
            @hypothesis.given(case=strategy)
            def send(case: schemathesis.Case[Any]) -> None:
                case.call_and_validate(
                    headers={"Authorization": f"Bearer {api.tokens['admin']}"}, checks=CHECKS, timeout=20
                )

            try:
                send()
            except hypothesis.errors.Unsatisfiable:
                continue  # nothing that is not allowed can be sent to it
            tried += 1
    assert tried > 50
    assert api.shell.json("ledger", "verify")["consistent"]
