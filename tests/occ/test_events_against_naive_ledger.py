"""One-time events against the naive ledger: debits, refunds, enquiries (row 38; RFC 8506 section 6).

What it has been seen to catch: a debit refunded twice; more refunded than was debited; an enquiry that says another
price than the debit after it comes to.
"""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from balance.embedded import Address
from balance.model import Unit
from protocols.credit_control import CreditControlRequest, ServiceRequest, Units

pytest.register_assert_rewrite("tests.occ.charging_machine")

from tests.occ.machine_catalogue import PROFILES  # noqa: E402 - the assertions of a machine are to be told in full
from tests.occ.machine_requests import Name, sums  # noqa: E402
from tests.occ.session_machine import SessionMachine, callers, copies, run, workers  # noqa: E402
from tests.plain import PLAIN_ONLY  # noqa: E402

DEBIT, REFUND, CHECK, ENQUIRY = range(4)

GROUPS = (10, 20, 40, 60, 80, 81, 82, 99, 110)
NAMES: tuple[Name, ...] = (*((group, ()) for group in GROUPS), (10, (5,)), (40, (8, 7)), (None, (7,)), (None, ()))

ask = st.one_of(
    st.none(),
    st.just(Units()),
    st.integers(0, 12).map(lambda n: Units(time=n, total_octets=n, service_specific=n)),
    sums.map(lambda money: Units(money=money)),
    st.integers(1, 40).map(lambda n: Units(money=(n, -6, None))),
)
"""What a refund may want back."""


class EventMachine(SessionMachine):
    money = True

    def begin(self, data: Any) -> None:
        self.debit_and_refunds(data, b"a1", data.draw(st.integers(1, 8)), 2)

    def _event(self, data: Any, key: bytes, action: int, who: bytes, number: int = 0) -> CreditControlRequest:
        services, others = self._services(data), self._time(data)
        if not services and data.draw(st.booleans()):
            others.update(self._draw_units(data))
        # Left out, it is a debit.
        told = None if action == DEBIT and data.draw(st.booleans()) else action
        return self.request(key, 4, number, services, who, requested_action=told, **others)

    @rule(
        data=st.data(),
        who=callers,
        action=st.sampled_from([DEBIT] * 4 + [CHECK, ENQUIRY]),
        profile=st.sampled_from(sorted(PROFILES)),
        worker=workers,
        copies=copies,
    )
    def event(self, data: Any, who: bytes, action: int, profile: str, worker: int, copies: int) -> None:
        request = self._event(data, self.new_session(), action, who)
        self.send(request, PROFILES[profile], worker, copies)

    @rule(data=st.data(), who=callers, worker=workers)
    def ask_then_debit(self, data: Any, who: bytes, worker: int) -> None:
        """A price enquiry says what the debit costs, a balance check whether it can be had."""
        price = self._event(data, self.new_session(), ENQUIRY, who)
        check = replace(price, session_id=self.new_session(), requested_action=CHECK)
        debit = replace(price, session_id=self.new_session(), requested_action=DEBIT)
        told, _ = self.send(price, PROFILES["lenient"], worker)
        enough, _ = self.send(check, PROFILES["lenient"])
        before = self._money(who)
        outcome, _ = self.send(debit, PROFILES["lenient"], worker)
        granted = [grant for grant in outcome.grants if grant.result_code == 2001]
        asked = [grant for grant in told.grants if grant.result_code == 2001]
        if outcome.result_code == 2001 and len(granted) == len(asked):
            assert told.cost_micro == before - self._money(who)
            assert enough.check_balance_result == 0
        elif told.result_code == 2001:
            assert enough.check_balance_result == 1

    def _money(self, who: bytes) -> int:
        account = self.naive.subscribers[who].account
        found = next(each for each in self.run(self._read())[0] if each.account_id == account.encode())
        return sum(bucket.balance for bucket in found.buckets if bucket.unit == Unit.MONEY)

    @precondition(lambda self: self.naive.ended or self.naive.open)
    @rule(
        data=st.data(), action=st.sampled_from([DEBIT, DEBIT, CHECK, ENQUIRY]), number=st.integers(0, 2), worker=workers
    )
    def event_in_a_session_known(self, data: Any, action: int, number: int, worker: int) -> None:
        known = {**self.naive.ended, **self.naive.open}
        key = data.draw(st.sampled_from(sorted(known)), label="session")
        self.send(self._event(data, key, action, known[key].subscriber.encode(), number), PROFILES["lenient"], worker)

    def _some_debit(self, data: Any) -> bytes:
        """Of something else at times."""
        debits = [key for key, each in sorted(self.naive.ended.items()) if each.state == "debit"]
        others = sorted({*self.naive.ended, *self.naive.open, b"unheard of"})
        key: bytes = data.draw(st.sampled_from(debits if debits and data.draw(st.integers(0, 5)) else others))
        return key

    def _refund(self, data: Any, key: bytes) -> CreditControlRequest:
        """By somebody else, at times."""
        debit = self.naive.ended.get(key) or self.naive.open.get(key)
        who = debit.subscriber.encode() if debit and data.draw(st.integers(0, 7)) else data.draw(callers)
        names = list(debit.services) if debit else []
        services = []
        if data.draw(st.integers(0, 3)):
            for group, identifier in names or [(20, -1)]:
                if data.draw(st.integers(0, 3)):
                    ids = (identifier,) if identifier >= 0 else ()
                    services.append(ServiceRequest(group if group >= 0 else None, ids, data.draw(ask)))
        if services and data.draw(st.integers(0, 9)) == 9:
            services.append(services[0])
        account = self.naive.subscribers[who].account
        ways = ["service", "command"] + (["session"] if debit is None or debit.account == account else [])
        way = data.draw(st.sampled_from(ways), label="named by")
        told: dict[str, Any] = {"requested_action": REFUND}
        if way == "service" and services:
            services[-1] = replace(services[-1], refund_information=key)
        elif way != "session":
            told["refund_information"] = key
        if not services:
            told["requested"] = data.draw(ask)
        again = [
            each.request.session_id
            for each in self.sent
            if each.request.requested_action == REFUND
            and self.naive.subscribers[each.request.subscriptions[0][1]].account == account
        ]
        own = data.draw(st.sampled_from(again)) if again and not data.draw(st.integers(0, 7)) else self.new_session()
        number = data.draw(st.integers(0, 3))
        return self.request(key if way == "session" else own, 4, number, services, who, **told)

    @rule(data=st.data(), worker=workers, copies=copies)
    def refund(self, data: Any, worker: int, copies: int) -> None:
        self.send(self._refund(data, self._some_debit(data)), PROFILES["lenient"], worker, copies)

    @rule(data=st.data(), who=callers, amount=st.integers(1, 8), times=st.integers(1, 3))
    def debit_and_refunds(self, data: Any, who: bytes, amount: int, times: int) -> None:
        """Of one service, or of two; then of all that was debited, or of some of it, and perhaps once too often."""
        key = self.new_session()
        named = data.draw(st.lists(st.sampled_from(self.names), min_size=1, max_size=2, unique=True), label="services")
        units = Units(time=amount, total_octets=amount, service_specific=amount)
        services = [ServiceRequest(group, identifiers, units) for group, identifiers in named]
        self.send(self.request(key, 4, 0, services, who), PROFILES["lenient"])
        for _ in range(times):
            self.send(self._refund(data, key), PROFILES["lenient"])

    @rule(data=st.data(), worker=workers)
    def two_refunds_at_once(self, data: Any, worker: int) -> None:
        """At two workers, of one debit perhaps."""
        both = [self._refund(data, self._some_debit(data)) for _ in range(2)]
        self.send_both(both, PROFILES["lenient"], worker)

    @rule(data=st.data(), who=callers, worker=workers)
    def debit_and_refund_at_once(self, data: Any, who: bytes, worker: int) -> None:
        debit = self._event(data, self.new_session(), DEBIT, who)
        self.send_both([debit, self._refund(data, self._some_debit(data))], PROFILES["lenient"], worker)


@PLAIN_ONLY  # it copies a catalogue, which compiled classes do not allow
@pytest.mark.shows("row 16", "row 19", "row 38")
def test_events(clean_redis: Address) -> None:
    run(EventMachine, clean_redis, 25, names=NAMES)
