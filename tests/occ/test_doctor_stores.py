"""``occ doctor`` on stores of several servers: whether another one has what was answered, and can take over."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest

from balance.address import Address
from occ.doctor import Finding, Grade, store
from occ.settings import Settings
from occ.store_settings import StoreSettings
from tests.faults.deployments import HOST, Process, Sharded
from tests.faults.rig import await_it


@pytest.fixture(scope="module")
def primary() -> Iterator[Process]:
    """With one replica."""
    with ExitStack() as stack:
        primary = Process()
        replica = Process([f"replicaof {HOST} {primary.port}"])
        for each in (primary, replica):
            stack.callback(each.end)
            each.start()
        await_it(lambda: primary.info("connected_slaves") == "1", "the replica does not connect")
        yield primary


def findings(settings: StoreSettings) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for each in store(replace(Settings(), store=settings), running=False):
        found.setdefault(each.what, []).append(each)
    return found


@pytest.mark.parametrize(("replicas", "grade"), [(1, Grade.GOOD), (2, Grade.BAD)])
def test_whether_there_are_the_replicas_that_debits_wait_for(primary: Process, replicas: int, grade: Grade) -> None:
    where = Address(host=HOST, port=primary.port)
    found = findings(StoreSettings(mode="external", url=where, wait_replicas=replicas))
    first, *others = found["redis replicas"]
    assert first.grade == grade
    assert [(each.grade, "min-replicas-to-write" in each.text) for each in others] == [(Grade.DOUBTFUL, True)]
    primary.call("CONFIG", "SET", "min-replicas-to-write", 1)
    try:
        assert len(findings(StoreSettings(mode="external", url=where, wait_replicas=replicas))["redis replicas"]) == 1
    finally:
        primary.call("CONFIG", "SET", "min-replicas-to-write", 0)


def test_every_primary_of_a_cluster_is_looked_at() -> None:
    with ExitStack() as stack:
        sharded = Sharded(stack)
        found = findings(StoreSettings(mode="cluster", cluster_nodes=sharded.address().nodes))
        told = [each.text for each in found["redis"]]
        assert all(any(text.endswith(f":{node.port}") for text in told) for node in sharded.primaries())
        first, *_ = found["redis replicas"]
        assert first.grade == Grade.DOUBTFUL
        assert "store.wait_replicas" in first.mend


def test_where_nobody_answers_the_right_setting_is_named() -> None:
    found = findings(StoreSettings(mode="sentinel", sentinels=((HOST, 1),), master_name="occ"))
    assert "store.sentinels and store.master_name" in found["redis"][0].mend
    found = findings(StoreSettings(mode="cluster", cluster_nodes=((HOST, 1),)))
    assert "store.cluster_nodes" in found["redis"][0].mend
