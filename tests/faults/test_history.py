"""The history checker takes what can have happened, and refuses each history that was doctored."""

import copy
from collections.abc import Callable

import pytest

from tests.faults.history import Answer, Key, Ledger, Operation, check

CENT = 10_000
Doctor = Callable[[list[Operation], Ledger], None]


def honest() -> tuple[list[Operation], Ledger]:
    """Two sessions and an event on one account with 10 cents; one report was never answered, and debited."""

    def operation(session: str, kind: int, number: int, at_s: float, used: int, granted: int = 0) -> Operation:
        answer = Answer(at_s + 0.1, True, granted * CENT, f"{session}/{number}".encode())
        return Operation(Key(session, kind, number), "a", at_s, used * CENT, [answer])

    operations = [
        operation("s1", 1, 0, 1.0, 0, granted=4),
        operation("s2", 1, 0, 1.05, 0, granted=4),
        operation("s1", 2, 1, 2.0, 3, granted=2),
        operation("s2", 3, 1, 2.5, 1),
        operation("e", 4, 0, 3.0, 2),
        operation("s1", 3, 2, 4.0, 1),
        Operation(Key("s3", 3, 1), "a", 5.0, 1 * CENT, []),
    ]
    operations[2].answers.append(Answer(2.8, True, 2 * CENT, operations[2].answers[0].body))  # repeated
    debits = [("a", each.key, each.price_micro) for each in operations if each.price_micro]
    return operations, Ledger({"a": 10 * CENT}, {"a": 2 * CENT}, debits, {"a": 0})


def test_what_can_have_happened_is_taken() -> None:
    assert check(*honest()) == []


def test_a_report_that_nobody_answered_may_be_debited_or_not() -> None:
    operations, ledger = honest()
    ledger.debits = list(ledger.debits)[:-1]
    ledger.balances_micro["a"] += CENT
    assert check(operations, ledger) == []


def test_a_refusal_debits_nothing_or_what_was_reported() -> None:
    operations, ledger = honest()
    operations[-1].answers.append(Answer(6.0, False, 0, b"5002"))
    assert check(operations, ledger) == []


def _lose_money(operations: list[Operation], ledger: Ledger) -> None:
    ledger.balances_micro["a"] -= 1


def _make_money(operations: list[Operation], ledger: Ledger) -> None:
    ledger.balances_micro["a"] += 1


def _debit_twice(operations: list[Operation], ledger: Ledger) -> None:
    ledger.debits = [*ledger.debits, ledger.debits[0]]
    ledger.balances_micro["a"] -= ledger.debits[0][2]


def _debit_twice_in_parts(operations: list[Operation], ledger: Ledger) -> None:
    account, key, micro = ledger.debits[0]
    ledger.debits = [(account, key, micro - CENT), (account, key, CENT), *list(ledger.debits)[1:]]


def _forget_a_debit(operations: list[Operation], ledger: Ledger) -> None:
    ledger.balances_micro["a"] += ledger.debits[0][2]
    ledger.debits = list(ledger.debits)[1:]


def _debit_another_amount(operations: list[Operation], ledger: Ledger) -> None:
    account, key, micro = ledger.debits[0]
    ledger.debits = [(account, key, micro + 1), *list(ledger.debits)[1:]]
    ledger.balances_micro["a"] -= 1


def _debit_part_of_the_unanswered(operations: list[Operation], ledger: Ledger) -> None:
    account, key, micro = ledger.debits[-1]
    ledger.debits = [*list(ledger.debits)[:-1], (account, key, micro - 1)]
    ledger.balances_micro["a"] += 1


def _debit_what_nobody_asked_for(operations: list[Operation], ledger: Ledger) -> None:
    ledger.debits = [*ledger.debits, ("a", Key("nobody", 2, 1), CENT)]
    ledger.balances_micro["a"] -= CENT


def _debit_somebody_else(operations: list[Operation], ledger: Ledger) -> None:
    _, key, micro = ledger.debits[0]
    ledger.debits = [("b", key, micro), *list(ledger.debits)[1:]]
    ledger.balances_micro |= {"a": ledger.balances_micro["a"] + micro, "b": 0}
    ledger.paid_in_micro["b"] = micro


def _answer_otherwise(operations: list[Operation], ledger: Ledger) -> None:
    operations[0].answers.append(Answer(1.5, True, 5 * CENT, b"other"))


def _answer_too_early(operations: list[Operation], ledger: Ledger) -> None:
    operations[4].answers[0] = Answer(2.9, True, 0, b"e/0")


def _promise_the_same_credit_twice(operations: list[Operation], ledger: Ledger) -> None:
    operations[1].answers[0] = Answer(1.15, True, 7 * CENT, b"s2/0")


def _keep_a_reservation(operations: list[Operation], ledger: Ledger) -> None:
    ledger.reserved_micro["a"] = CENT


def _overdraw(operations: list[Operation], ledger: Ledger) -> None:
    ledger.balances_micro["a"] = -CENT
    ledger.debits = [*ledger.debits, ("a", Key("s3", 3, 2), 3 * CENT)]
    operations.append(Operation(Key("s3", 3, 2), "a", 6.0, 3 * CENT, []))


@pytest.mark.parametrize(
    "doctor",
    [
        _lose_money,
        _make_money,
        _debit_twice,
        _debit_twice_in_parts,
        _forget_a_debit,
        _debit_another_amount,
        _debit_part_of_the_unanswered,
        _debit_what_nobody_asked_for,
        _debit_somebody_else,
        _answer_otherwise,
        _answer_too_early,
        _promise_the_same_credit_twice,
        _keep_a_reservation,
        _overdraw,
    ],
)
def test_a_doctored_history_is_refused(doctor: Doctor) -> None:
    operations, ledger = copy.deepcopy(honest())
    doctor(operations, ledger)
    assert check(operations, ledger)
