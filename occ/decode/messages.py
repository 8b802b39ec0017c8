"""Messages as they were found, to messages with all that is said about them."""

from typing import Final

from occ.decode.exchange import Exchanges
from occ.decode.faults import error_of, fault_remarks
from occ.decode.rules_answer import ANSWER_RULES
from occ.decode.rules_base import BASE_RULES
from occ.decode.rules_request import REQUEST_RULES
from occ.decode.streams import Found, Streams
from occ.decode.tree import DecodedMessage, Kind, Remark

_ORDER: Final = list(Kind)


def decoded(streams: Streams) -> list[DecodedMessage]:
    """All messages of one input in order, judged by themselves and against each other; never raises."""
    messages = [_decoded(number, found) for number, found in enumerate(streams.messages, 1)]
    Exchanges(streams).judge(messages)
    for message in messages:
        message.remarks = sorted(dict.fromkeys(message.remarks), key=_gravity)
    return messages


class LiveDecoder:
    """Decodes messages as they come, one after the other, and judges each by those before it."""

    def __init__(self) -> None:
        self._exchanges = Exchanges(Streams())
        self._number = 0

    def take(self, found: Found) -> DecodedMessage:
        """The next message; never raises."""
        self._number += 1
        message = _decoded(self._number, found)
        self._exchanges.judge([message])
        message.remarks = sorted(dict.fromkeys(message.remarks), key=_gravity)
        return message


def _gravity(remark: Remark) -> int:
    return _ORDER.index(remark.kind)


def _decoded(number: int, found: Found) -> DecodedMessage:
    message = DecodedMessage(number, found)
    message.error = error_of(message)
    message.remarks = list(fault_remarks(message))
    if found.missing:
        return message  # what it lacks may be in the part that is not there
    message.remarks += BASE_RULES.remarks(message)
    if not message.rest:
        message.remarks += REQUEST_RULES.remarks(message)
        message.remarks += ANSWER_RULES.remarks(message)
    return message
