"""What charging clients do in sessions, legal and not, as rules of a machine; and how such a machine is run."""

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule, run_state_machine_as_test

from balance.embedded import Address
from protocols.credit_control import ServiceRequest, Units
from tests.occ.charging_machine import ChargingMachine
from tests.occ.machine_catalogue import PROFILES
from tests.occ.machine_requests import Name, Services, several

callers = st.sampled_from([b"a1", b"a1", b"a2", b"b1"])
workers = st.integers(0, 1)
copies = st.sampled_from([1, 1, 1, 2])


class SessionMachine(ChargingMachine):
    names: tuple[Name, ...] = ()
    money = False
    labels = False
    timestamps = False
    profile_names: tuple[str, ...] = tuple(sorted(PROFILES))

    def _services(self, data: Any) -> tuple[ServiceRequest, ...]:
        least = data.draw(st.sampled_from([1, 1, 1, 0]))
        drawn: Services = data.draw(several(self.names, self.labels, self.money, least))
        return drawn.requests

    def _time(self, data: Any) -> dict[str, Any]:
        if not self.timestamps or data.draw(st.booleans()):
            return {}
        return {"event_timestamp": self.now_ms // 1000 + data.draw(st.integers(-90, 70))}

    def _draw_units(self, data: Any) -> dict[str, Any]:
        """Outside any Multiple-Services-Credit-Control, as the simplest clients do."""
        (one,) = data.draw(several(self.names, self.labels, self.money, least=1, most=1)).requests
        identifier = min(one.service_identifiers, default=None)
        return {"requested": one.requested, "used": one.used, "service_identifier": identifier}

    def begin(self, data: Any) -> None:
        self.opens(data, data.draw(callers), 0, 1)

    def opens(self, data: Any, who: bytes, worker: int, copies: int) -> None:
        """As a client should: it asks for some services, each once, and reports nothing."""
        named = data.draw(st.lists(st.sampled_from(self.names), min_size=1, max_size=3, unique=True), label="services")
        services = []
        for group, identifiers in named:
            amount = data.draw(st.integers(0, 25))
            told = Units(time=amount, total_octets=amount, service_specific=amount) if amount else Units()
            if self.money and data.draw(st.booleans()):
                told = Units(money=(amount, -6, None))
            services.append(ServiceRequest(group, identifiers, told))
        self._initial(data, services, who, worker, copies, indicator=1)

    @rule(data=st.data(), who=callers, legal=st.booleans(), worker=workers, copies=copies)
    def initial(self, data: Any, who: bytes, legal: bool, worker: int, copies: int) -> None:
        if legal:
            self.opens(data, who, worker, copies)
            return
        indicator = data.draw(st.sampled_from([1, 1, None, 0]), label="Multiple-Services-Indicator")
        services = self._services(data)
        others = {} if services or data.draw(st.booleans()) else self._draw_units(data)
        self._initial(data, services, who, worker, copies, indicator, **others)

    def _initial(
        self,
        data: Any,
        services: Sequence[ServiceRequest],
        who: bytes,
        worker: int,
        copies: int,
        indicator: int | None,
        **others: Any,
    ) -> None:
        key = self.new_session()
        self.profiles[key] = PROFILES[data.draw(st.sampled_from(self.profile_names), label="profile")]
        self.numbers[key] = 1
        others.update(self._time(data))
        state_id = data.draw(st.sampled_from([None, 0, 5, 6]), label="Origin-State-Id")
        request = self.request(
            key, 1, 0, services, who, origin_state_id=state_id, multiple_services_indicator=indicator, **others
        )
        self.send(request, self.profiles[key], worker, copies)

    @precondition(lambda self: self.naive.open)
    @rule(
        data=st.data(),
        kind=st.sampled_from([2, 2, 2, 2, 3]),
        jump=st.sampled_from([0] * 8 + [2, -1, -2]),
        named=st.booleans(),
        worker=workers,
        copies=copies,
    )
    def go_on(self, data: Any, kind: int, jump: int, named: bool, worker: int, copies: int) -> None:
        """An update or a termination; the number may be that of a request before."""
        key = data.draw(st.sampled_from(sorted(self.naive.open)), label="session")
        self._go_on(data, key, kind, jump, named, worker, copies)

    def _go_on(self, data: Any, key: bytes, kind: int, jump: int, named: bool, worker: int, copies: int) -> None:
        services = self._services(data)
        others = self._time(data)
        if not services and data.draw(st.integers(0, 3)) == 3:
            others.update(self._draw_units(data))
        self._send(key, kind, services, jump, named, worker, copies, **others)

    def _send(
        self,
        key: bytes,
        kind: int,
        services: Sequence[ServiceRequest],
        jump: int = 0,
        named: bool = True,
        worker: int = 0,
        copies: int = 1,
        **others: Any,
    ) -> None:
        number = max(0, self.numbers[key] + jump)
        self.numbers[key] = max(self.numbers[key], number + 1)
        session = self.naive.open.get(key) or self.naive.ended[key]
        who = session.subscriber.encode() if named else None
        self.send(self.request(key, kind, number, services, who, **others), self.profiles[key], worker, copies)

    @precondition(lambda self: any(key in self.numbers for key in self.naive.ended))
    @rule(data=st.data(), kind=st.sampled_from([2, 3, 3]), named=st.booleans(), worker=workers, copies=copies)
    def too_late(self, data: Any, kind: int, named: bool, worker: int, copies: int) -> None:
        """Row 22: charged once if supervision had ended the session, 5002 if the client had."""
        known = [key for key in sorted(self.naive.ended) if key in self.numbers]
        key = data.draw(st.sampled_from(known), label="session")
        self._go_on(data, key, kind, 0, named, worker, copies)

    @precondition(lambda self: self.naive.open)
    @rule(
        data=st.data(),
        kind=st.sampled_from([2, 2, 2, 3]),
        over=st.sampled_from([0, 0, 0, 1, 4]),
        asks=st.sampled_from([True, True, False]),
        worker=workers,
        copies=copies,
    )
    def as_granted(self, data: Any, kind: int, over: int, asks: bool, worker: int, copies: int) -> None:
        """Every service reports some of what it was granted, or a little more, and asks for more."""
        self._report(data, kind, over, asks, worker, copies)

    @precondition(lambda self: self.naive.open)
    @rule(data=st.data(), milliseconds=st.integers(1, 120).map(lambda halves: halves * 500))
    def as_granted_after_a_while(self, data: Any, milliseconds: int) -> None:
        self.pass_time(milliseconds)
        if self.naive.open:
            self._report(data, 2, 0, True)

    def _report(self, data: Any, kind: int, over: int, asks: bool, worker: int = 0, copies: int = 1) -> None:
        key = data.draw(st.sampled_from(sorted(self.naive.open)), label="session")
        session = self.naive.open[key]
        services = []
        for (group, identifier), name in session.services.items():
            granted = self.naive.ledgers[session.account].services[name].granted
            if granted:
                used = data.draw(st.just(granted) | st.integers(0, min(granted, 30))) + over
                told = self._on_sides(data, used) if self.labels else ((used, None),)
                units = tuple(
                    Units(time=n, total_octets=n, service_specific=n, money=(n, -6, None), tariff_change_usage=side)
                    for n, side in told
                )
                wants = Units(money=(7, -6, None)) if name in self.in_money(session) else Units()
                named = (identifier,) if identifier >= 0 else ()
                services.append(ServiceRequest(group if group >= 0 else None, named, wants if asks else None, units))
        self._send(key, kind, services, worker=worker, copies=copies, **self._time(data))

    @staticmethod
    def _on_sides(data: Any, used: int) -> tuple[tuple[int, int | None], ...]:
        """What was used before, after and around a tariff switch."""
        if data.draw(st.booleans()):
            return ((used, None),)
        before = data.draw(st.integers(0, used))
        after = data.draw(st.integers(0, used - before))
        return ((before, 0), (after, 1), (used - before - after, 2))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), worker=workers, last=st.booleans(), other_content=st.booleans())
    def repeat(self, data: Any, worker: int, last: bool, other_content: bool) -> None:
        """Row 16, whatever else the repeat says."""
        sent = self.sent[-1] if last else data.draw(st.sampled_from(self.sent), label="sent")
        request = sent.request
        if request.request_type in (1, 4) and not (
            request.session_id in self.naive.open or request.session_id in self.naive.ended
        ):
            return  # long forgotten: it would be a new session
        if other_content:
            request = replace(request, services=tuple(self._services(data)), requested=None, used=(), flags=0xD0)
        self.send(request, sent.profile, worker)

    @rule(account=st.sampled_from("aab"), amount=st.integers(1, 30))
    def money_comes(self, account: str, amount: int) -> None:
        self.top_up(account, amount)

    @rule(seconds=st.sampled_from([0, 0, 0, 0, 20, 50, 100, 150, 300, 3600]), more=st.integers(1, 20))
    def time_passes(self, seconds: int, more: int) -> None:
        """Row 23."""
        self.pass_time((seconds + more) * 1000)

    @rule(
        data=st.data(), what=st.sampled_from(["restart", "refuse", "sell", "again", "unknown", "nobody", "elsewhere"])
    )
    def seldom(self, data: Any, what: str) -> None:
        {
            "restart": self.client_restarts,
            "refuse": self.client_refuses_to_abort,
            "sell": self.catalogue_changes,
            "again": self.begin_again,
            "unknown": self.unknown_session,
            "nobody": self.unknown_user,
            "elsewhere": self.other_context,
        }[what](data)

    def client_restarts(self, data: Any) -> None:
        """Row 17."""
        self.client_lost_state(b"GW", data.draw(st.integers(5, 7)))

    def client_refuses_to_abort(self, data: Any) -> None:
        """Row 43: nothing more is granted to it."""
        if self.naive.open:
            self.refuse(data.draw(st.sampled_from(sorted(self.naive.open)), label="session"))

    def catalogue_changes(self, data: Any) -> None:
        self.sell(data.draw(st.integers(0, 2)))

    def begin_again(self, data: Any) -> None:
        """I on a session that is or was open: refused, unless its client has lost its state since (row 22)."""
        known = [key for key in sorted(self.numbers) if key in self.naive.open or key in self.naive.ended]
        if not known:
            return
        key = data.draw(st.sampled_from(known), label="session")
        session = self.naive.open.get(key) or self.naive.ended[key]
        number = data.draw(st.sampled_from([0, 0, 9]))
        state_id = data.draw(st.sampled_from([None, 5, 6, 7]))
        request = self.request(
            key, 1, number, self._services(data), session.subscriber.encode(), origin_state_id=state_id,
            multiple_services_indicator=1,
        )  # fmt: skip
        self.send(request, self.profiles[key], data.draw(workers))
        self.numbers[key] = max(self.numbers[key], number + 1)

    def unknown_session(self, data: Any) -> None:
        who = data.draw(st.sampled_from([None, b"a1", b"nobody"]))
        request = self.request(b"unheard of", data.draw(st.sampled_from([2, 3])), 5, self._services(data), who)
        self.send(request, PROFILES["lenient"], data.draw(workers))

    def unknown_user(self, data: Any) -> None:
        who = data.draw(st.sampled_from([None, b"nobody"]))
        request = self.request(b"unheard of", data.draw(st.sampled_from([1, 4])), 0, self._services(data), who)
        self.send(request, PROFILES["lenient"])

    def other_context(self, data: Any) -> None:
        key = self.new_session()
        self.profiles[key] = PROFILES["lenient"]
        self.numbers[key] = 1
        other = data.draw(st.sampled_from([b"32260@3gpp.org", b"x.32251@3gpp.org"]))
        self.send(self.request(key, 1, 0, self._services(data), data.draw(callers), context=other), PROFILES["lenient"])


FACTOR = int(os.environ.get("NAIVE_LEDGER_EXAMPLES", "1"))
"""More than 1: so many times the examples, and others each time."""


def run(machine: type[ChargingMachine], address: Address, examples: int, steps: int = 30, **settings_: Any) -> None:
    """Let random clients loose; ``settings_``: attributes of the machine. The same ones each time, unless asked for."""
    kind = type(machine.__name__, (machine,), {"address": address, **settings_})
    chosen = settings(
        max_examples=examples * FACTOR,
        stateful_step_count=steps,
        deadline=None,
        derandomize=FACTOR == 1,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    with redis.Redis.from_url(address.url) as client:
        client.config_set("appendfsync", "no")  # nothing here is about what a crash leaves
        try:
            run_state_machine_as_test(kind, settings=chosen)
        finally:
            client.config_set("appendfsync", "always")
