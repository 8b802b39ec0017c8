"""Live sessions follow the rules, whenever they change: files that are read anew, and those that are refused."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from balance.embedded import Address
from balance.model import IdentityType
from balance.transitions import waiting
from occ.reload import DONE, FAILED, UNCHANGED
from tests.live_server import LiveServer
from tests.occ.policy_live_lab import EURO, RULES, code
from tests.reauthorisation_lab import Lab, eventually
from tests.shell import Shell


@pytest.fixture
def own(tmp_path: Path) -> Iterator[LiveServer]:
    """A server whose rules a test may change."""
    path = tmp_path / "policies.yaml"
    path.write_text(RULES)
    with LiveServer(tmp_path / "server", {"policies": str(path)}) as running:
        running.server.policy_reload.settle_s = 0.05
        yield running


async def test_other_rules_take_effect_on_live_sessions_and_send_no_notices(
    own: LiveServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whose level is another one by the new rules, and whose level means something else: both are asked."""
    first, second, third = (Lab(own, caplog) for _ in range(3))
    own.top_up(first.name, 3 * EURO)
    own.top_up(third.name, 8 * EURO)
    clients = [await lab.client() for lab in (first, second, third)]
    for lab, client in zip((first, third), (clients[0], clients[2]), strict=True):
        await lab.session_of(client)
    own.top_up(second.name, 8 * EURO)
    await second.session_of(clients[1])
    path = tmp_path / "policies.yaml"
    path.write_text(RULES.replace("balance below 2.00, until: balance at least 3.00", "balance below 5.00"))
    done = own.run(own.server.policy_reload.reload())
    assert done.result == DONE
    await eventually(lambda: len(clients[0].asked) == 1)
    assert own.account(first.name).levels == ("low",)
    assert code(await clients[0].update(first.session)) == 4010
    path.write_text(RULES.replace("balance below 2.00, until: balance at least 3.00", "balance below 5.00").replace(
        "do: bar, notify: low-balance", "do: allow, notify: low-balance"
    ))  # fmt: skip
    assert own.run(own.server.policy_reload.reload()).result == DONE
    await eventually(lambda: len(clients[0].asked) == 2)
    assert code(await clients[0].update(first.session)) == 2001
    assert [len(client.asked) for client in clients] == [2, 0, 0]
    assert own.run(own.server.store.call("EXISTS", "occ:policy-events")) == 0
    for client in clients:
        await client.close()


async def test_policy_counters_that_mean_something_else_are_looked_at(own: LiveServer, tmp_path: Path) -> None:
    """Whoever tells policy nodes hears of each account whose counters have another status by the new rules."""
    moved: list[bytes] = []

    async def on_transition(account_id: bytes, now_ms: int) -> None:
        moved.append(account_id)

    own.add_account("acc-low", [(IdentityType.E164, "4917001")], balance_micro=EURO)
    own.add_account("acc-rich", [(IdentityType.E164, "4917002")], balance_micro=9 * EURO)
    own.server.acting.on_transition.append(on_transition)
    counters = "counters:\n  MAIN: {{low: low, otherwise: {0}}}\n"
    for status, concerned in (("active", [b"acc-low", b"acc-rich"]), ("good", [b"acc-rich"])):
        moved.clear()
        (tmp_path / "policies.yaml").write_text(RULES + counters.format(status))
        assert own.run(own.server.policy_reload.reload()).result == DONE
        await eventually(lambda concerned=concerned: sorted(moved) == concerned)  # type: ignore[misc]


async def test_a_file_with_a_mistake_leaves_the_rules_in_force(own: LiveServer, tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(RULES.replace("[internet], do: bar", "[internett], do: bar"))
    done = own.run(own.server.policy_reload.reload())
    assert done.result == FAILED
    assert "policies.yaml:7" in done.mistake
    assert "internett" in done.mistake
    assert done.edition == done.before == own.server.charging.rules.policies.policies.edition  # type: ignore[union-attr]
    path.write_text(RULES)
    assert own.run(own.server.policy_reload.reload()).result == UNCHANGED


async def test_a_catalogue_that_lacks_what_rules_name_is_refused(own: LiveServer, tmp_path: Path) -> None:
    """The rules in force go with the catalogue, or it stays as it was."""
    text = own.settings.catalogue.read_text().replace("internet:", "web:").replace("[internet]", "[web]")
    path = tmp_path / "catalogue.yaml"
    path.write_text(text)
    own.server.catalogue_reload._path = path
    done = own.run(own.server.catalogue_reload.reload())
    assert done.result == FAILED
    assert "internet" in done.mistake


async def test_all_servers_are_told_to_reload(own: LiveServer, tmp_path: Path) -> None:
    """By the command line; and the process that asked watches by the new rules from then on."""
    shell = Shell(tmp_path, own.server.redis_address)
    (tmp_path / "policies.yaml").write_text("rules: []\n")
    await asyncio.to_thread(shell.text, "policy", "reload")
    assert own.server.charging.rules.policies is not None
    assert own.server.charging.rules.policies.policies.rules == ()


def test_what_changed_while_no_server_ran_is_found_at_the_start(tmp_path: Path, clean_redis: Address) -> None:
    """The rules were others then: accounts are at the levels of the new ones, and nobody is told."""
    external = {"store.mode": "external", "store.url": clean_redis.url}
    path = tmp_path / "policies.yaml"
    path.write_text("rules: []\n")
    with LiveServer(tmp_path / "first", {"policies": str(path), **external}) as first:
        first.add_account("acc-1", [(IdentityType.E164, "4917001")], balance_micro=EURO)
        assert first.account("acc-1").levels == ()
    path.write_text(RULES)
    with LiveServer(tmp_path / "second", {"policies": str(path), **external}) as second:
        deadline = time.monotonic() + 20
        while second.account("acc-1").levels != ("low",):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        second.assert_books_balance()
        while second.run(waiting(second.server.store)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert second.run(second.server.store.call("EXISTS", "occ:policy-events")) == 0
