"""What a rule is, and the tables of rules.

A rule is a function that looks at a message and says, in whole sentences, where it is broken. Its decorator names the
row of the conformance table and the clause it comes from; ``rules_base``, ``rules_request``, ``rules_answer`` and
``exchange`` are tables of such functions.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeVar

from occ.decode.tree import DecodedMessage, Kind, Node, Remark
from protocols.diameter.codes import Application, Command

Judge = TypeVar("Judge", bound=Callable[..., Iterable[str]])
Concerns = Callable[[DecodedMessage], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule: what it judges, and where it comes from. ``judge`` yields one sentence for each breach."""

    name: str
    kind: Kind
    row: int
    clause: str
    concerns: Concerns
    judge: Callable[..., Iterable[str]]

    def remarks(self, *judged: object) -> Iterator[Remark]:
        for text in self.judge(*judged):
            yield Remark(self.kind, text, self.row, self.clause)


class RuleTable:
    """Rules in the order they are written down."""

    def __init__(self) -> None:
        self.rules: list[Rule] = []

    def rule(self, row: int, clause: str, concerns: Concerns, kind: Kind = Kind.BREACH) -> Callable[[Judge], Judge]:
        """Adds the decorated function to the table."""

        def add(judge: Judge) -> Judge:
            self.rules.append(Rule(judge.__name__, kind, row, clause, concerns, judge))
            return judge

        return add

    def remarks(self, message: DecodedMessage, *others: object) -> Iterator[Remark]:
        """What all rules that concern the message have to say of it."""
        for rule in self.rules:
            if rule.concerns(message):
                yield from rule.remarks(message, *others)


# -- which messages a rule concerns ------------------------------------------------------------------------------

_CREDIT_CONTROL: Final = (int(Command.CREDIT_CONTROL), int(Application.CREDIT_CONTROL))


def every_message(_: DecodedMessage) -> bool:
    return True


def request(message: DecodedMessage) -> bool:
    return message.is_request


def answer(message: DecodedMessage) -> bool:
    return not message.is_request


def ccr(message: DecodedMessage) -> bool:
    return message.is_request and (message.command, message.application) == _CREDIT_CONTROL


def cca(message: DecodedMessage) -> bool:
    return not message.is_request and (message.command, message.application) == _CREDIT_CONTROL


def command(code: Command, *, is_request: bool) -> Concerns:
    """Messages of one command."""
    return lambda message: message.command == code and message.is_request == is_request


# -- wording -----------------------------------------------------------------------------------------------------


def service_text(service: Node) -> str:
    """'Rating-Group 10, Service-Identifier 1' of a Multiple-Services-Credit-Control, to tell which is meant."""
    parts = [f"{node.name} {node.integer}" for node in service.each("Rating-Group", "Service-Identifier")]
    return ", ".join(parts) or "the service without Rating-Group"


def listed(words: Iterable[str]) -> str:
    """'A', 'A and B', 'A, B and C', each once."""
    unique = list(dict.fromkeys(words))
    return " and ".join(part for part in (", ".join(unique[:-1]), *unique[-1:]) if part)
