"""What can be wrong with a Diameter message.

::

    Exception
     +-- DiameterError            carries the Result-Code and the Failed-AVP of the answer
          +-- MessageError        the message or its header: 3001, 3007, 3008, 5011, 5012, 5015
          +-- AvpError            one AVP of it: 3009, 5001, 5004, 5005, 5008, 5009, 5014
"""

from typing import Final

_PROTOCOL_ERRORS: Final = range(3000, 4000)


class DiameterError(Exception):
    """A message that must be answered with an error, or discarded if it is itself an answer.

    ``result_code``: Result-Code 268 for the answer (RFC 6733 section 7.1, RFC 8506 section 9).
    ``failed_avp``: one encoded AVP that shows what is wrong, to be put inside Failed-AVP 279 (RFC 6733
    section 7.5), or None where the error concerns no AVP.
    ``close``: the connection can no longer be trusted (its framing is lost) and is closed after the answer.
    """

    def __init__(self, result_code: int, message: str, failed_avp: bytes | None = None, *, close: bool = False) -> None:
        super().__init__(message)
        self.result_code = result_code
        self.message = message
        self.failed_avp = failed_avp
        self.close = close

    @property
    def is_protocol_error(self) -> bool:
        """True for 3xxx: the answer has the E bit and the grammar of RFC 6733 section 7.2."""
        return self.result_code in _PROTOCOL_ERRORS

    def __str__(self) -> str:
        return f"{self.result_code}: {self.message}"


class MessageError(DiameterError):
    """The message as a whole: its length, version, flags, command or application."""


class AvpError(DiameterError):
    """One AVP: its flags, length, value, presence or absence."""
