"""``occ demo policies`` on a running server: what is printed is what the rules that come with the project do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from occ.cli import app
from tests.live_server import LiveServer


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    with LiveServer(tmp_path / "server") as running:
        yield running


def demo(server: LiveServer, directory: Path) -> Result:
    config = directory / "demo.yaml"
    config.write_text(
        f"catalogue: {server.settings.catalogue}\n"
        f"diameter: {{port: {server.port}}}\n"
        f"store: {{mode: external, url: '{server.server.redis_address.url}'}}\n"
    )
    return CliRunner().invoke(app, ["--config", str(config), "demo", "policies"])


PLAYED = (
    r"With money everything goes",
    r"<- data session: 2001 SUCCESS: Internet 100 MiB granted",
    r"Below 2.00",
    r"notice low-balance \(rule tell-low\)",
    r"<- call abroad: 2001 SUCCESS: 60 s granted",
    r"<- call abroad: Re-Auth-Request",
    r"balance 0.00 EUR, at low, zero\n",
    r"<- call abroad: 2001 SUCCESS: 4010 END_USER_SERVICE_DENIED",
    r"<- data session: Re-Auth-Request for Rating-Group 10",
    r"Final-Unit-Action RESTRICT_ACCESS, Filter-Id throttle-128k",
    r"<- local call: 2001 SUCCESS: 60 s granted",
    r"<- local call: 2001 SUCCESS: 4012 CREDIT_LIMIT_REACHED",
    r"notice credit-limit-reached",
    r"Internet 4012 CREDIT_LIMIT_REACHED; portal 10 MiB granted",
    r"balance -1.00 EUR, at low, zero, negative, limit-reached\n",
    r"<- data session: Re-Auth-Request",
    r"<- data session: 2001 SUCCESS: Internet 100 MiB granted",
    r"notice restored",
    r"<- call abroad: 2001 SUCCESS: 60 s granted",
)
"""In this order, with anything in between. A Re-Auth-Request may overtake the answer to what brought it about, as they
go to different clients; it is printed behind that answer all the same."""


def test_the_play_goes_from_full_to_the_limit_and_back(server: LiveServer, tmp_path: Path) -> None:
    result = demo(server, tmp_path)
    assert result.exit_code == 0, result.output
    at = 0
    for wanted in PLAYED:
        found = re.compile(wanted).search(result.stdout, at)
        assert found is not None, f"{wanted!r} is missing after: {result.stdout[:at][-300:]}\n{result.stdout}"
        at = found.end()
    report = server.assert_books_balance()
    assert report.open_sessions == 0


def test_without_policies_it_says_what_is_missing(tmp_path: Path) -> None:
    with LiveServer(tmp_path / "server", {"policies": "none"}) as server:
        result = demo(server, tmp_path)
    assert result.exit_code == 1
    assert "has no policies" in result.stderr


def test_with_other_rules_it_says_whose_it_is_about(tmp_path: Path) -> None:
    rules = tmp_path / "policies.yaml"
    rules.write_text("levels:\n  low: {when: balance below 1.00}\n")
    with LiveServer(tmp_path / "server", {"policies": str(rules)}) as server:
        result = demo(server, tmp_path)
    assert result.exit_code == 1
    assert "no level zero" in result.stderr
