"""What the server's own validation says of a message: the error it answers with, and all others that are in it.

The server reports the first error and stops (RFC 6733 section 7). Here every AVP is held on its own against the same
validation, so that one answer to a broken client names all of its faults.
"""

from collections.abc import Iterator
from typing import Final

from occ.decode.names import application_name, result_name
from occ.decode.tree import BASE_COMMANDS, Branch, DecodedMessage, Kind, Node, Remark, split
from protocols.diameter.capabilities import checked_request, read_capabilities
from protocols.diameter.codes import Application, AvpFlag, Command, ResultCode
from protocols.diameter.dictionary import DICTIONARY, Grammar
from protocols.diameter.errors import AvpError, DiameterError, MessageError
from protocols.diameter.validation import (
    MAX_DEPTH,
    Walk,
    check_length,
    check_version,
    missing_avp,
    padded,
    raw_avp,
    validate,
)

_OPEN: Final = Grammar()
_FAILED_AVP: Final = 279
_FIRST_VENDOR_KEY: Final = 1 << 32

_SERVED: Final = {
    int(Application.CREDIT_CONTROL): frozenset((int(Command.CREDIT_CONTROL),)),
    int(Application.SY): frozenset((int(Command.SPENDING_LIMIT), int(Command.SESSION_TERMINATION))),
}
"""Applications and the commands whose requests the server takes."""
_TO_CLIENTS: Final = frozenset(
    (int(Command.RE_AUTH), int(Command.ABORT_SESSION), int(Command.SPENDING_STATUS_NOTIFICATION))
)
"""Requests that the server sends (RFC 8506 section 5.5, RFC 6733 section 8.5, TS 29.219 clause 4.5.2)."""

_SOURCES: Final[dict[int, tuple[int, str]]] = {
    ResultCode.COMMAND_UNSUPPORTED: (9, "RFC 6733 section 7.1.3"),
    ResultCode.APPLICATION_UNSUPPORTED: (9, "RFC 6733 section 7.1.3"),
    ResultCode.INVALID_HDR_BITS: (10, "RFC 6733 section 7.1.3"),
    ResultCode.INVALID_AVP_BITS: (11, "RFC 6733 section 7.1.3"),
    ResultCode.AVP_UNSUPPORTED: (12, "RFC 6733 section 4.1"),
    ResultCode.MISSING_AVP: (13, "RFC 6733 section 7.1.5"),
    ResultCode.NO_COMMON_APPLICATION: (1, "RFC 6733 section 5.3"),
    ResultCode.NO_COMMON_SECURITY: (1, "RFC 6733 section 5.3"),
}
_MALFORMED: Final = frozenset((5001, 5004, 5005, 5008, 5009, 5011, 5014, 5015))
_REPEATED: Final = frozenset((258, 263, 415, 416))
"""Auth-Application-Id, Session-Id, CC-Request-Number and CC-Request-Type: an answer has them from its request."""

_OF_ANY_APPLICATION: Final = frozenset((int(ResultCode.INVALID_AVP_LENGTH), int(ResultCode.INVALID_AVP_BITS)))
"""Errors that can be told without the AVPs of an application being known."""

_ELSE: Final = (14, "RFC 6733 section 7.1.5")


def error_of(message: DecodedMessage) -> DiameterError | None:
    """The error that the server answers a request with, before it looks at what the request asks for.

    Of an answer, and of a request that the server sends itself: why its receiver would not take it.
    """
    octets = message.found.octets
    if message.found.missing:
        return None
    try:
        check_length(octets)
        check_version(octets)
        if message.is_request and message.command in BASE_COMMANDS:
            _check_base_request(octets)
        elif message.is_request and message.command not in _TO_CLIENTS:
            _check_served(message)
            validate(octets)
        elif message.definition is not None:
            validate(_with_application(message))
    except DiameterError as error:
        return None if _repeats_its_request(message, error) else error
    return None


def refuses_malformed(message: DecodedMessage) -> bool:
    """Whether it is an answer to a request that could not be read, which shows what is wrong with that."""
    return not message.is_request and message.result_code in _MALFORMED


def _repeats_its_request(message: DecodedMessage, error: DiameterError) -> bool:
    """Whether what is wrong with an answer is wrong with its request: it repeats what there is to repeat."""
    if error.result_code == ResultCode.INVALID_HDR_BITS:
        return message.result_code == ResultCode.INVALID_HDR_BITS
    failed = int.from_bytes((error.failed_avp or b"")[:4], "big")
    return refuses_malformed(message) and failed in _REPEATED


def _check_base_request(octets: bytes) -> None:
    request = checked_request(octets)
    if request.command != Command.CAPABILITIES_EXCHANGE:
        return
    capabilities = read_capabilities(request)
    if not capabilities.shares_security():
        raise MessageError(ResultCode.NO_COMMON_SECURITY, "it asks for TLS negotiated in-band")
    if not capabilities.applications & {*_SERVED, int(Application.RELAY)}:
        theirs = ", ".join(map(str, sorted(capabilities.applications))) or "none"
        ours = " and ".join(map(str, _SERVED))
        raise MessageError(ResultCode.NO_COMMON_APPLICATION, f"it supports application {theirs}; the server {ours}")


def _check_served(message: DecodedMessage) -> None:
    """Raises MessageError for what the server refuses by the header alone."""
    if message.is_error:
        raise MessageError(ResultCode.INVALID_HDR_BITS, "a request must not have both R and E set")
    commands = _SERVED.get(message.application, frozenset())
    if message.command in commands:
        return
    if not commands and any(message.command in known for known in _SERVED.values()):
        name = application_name(message.application)
        raise MessageError(
            ResultCode.APPLICATION_UNSUPPORTED,
            f"application {message.application}{f' ({name})' if name else ''} is not supported",
        )
    raise MessageError(ResultCode.COMMAND_UNSUPPORTED, f"command {message.command} is not supported")


def _with_application(message: DecodedMessage) -> bytes:
    """The message with the Application-Id that its command is known by."""
    octets = message.found.octets
    return octets[:8] + message.grammar_application.to_bytes(4, "big") + octets[12:]


# -- all errors --------------------------------------------------------------------------------------------------


def avp_errors(message: DecodedMessage) -> Iterator[AvpError]:
    """All that is wrong with the AVPs of a message, in the order of the octets; of each group, what is missing last."""
    definition = message.definition
    grammar = _OPEN
    if definition is not None:
        is_error_answer = message.is_error and not message.is_request
        grammar = DICTIONARY.error_answer if is_error_answer else definition.grammar
        application = message.grammar_application
    else:
        application = int(Application.BASE)
    errors = _Errors(application).within(message, grammar, 0, False)
    return errors if definition is not None else (one for one in errors if one.result_code in _OF_ANY_APPLICATION)


class _Errors:
    """Collects errors; ``application``: what Auth-Application-Id must say, 0 for anything."""

    def __init__(self, application: int) -> None:
        self._application = application

    def within(self, branch: Branch, grammar: Grammar, depth: int, optional: bool) -> Iterator[AvpError]:
        counts: dict[int, int] = {}
        for node in branch.members:
            counts[node.key] = counts.get(node.key, 0) + 1
            yield from self._surplus(node, grammar, counts[node.key])
            yield from self._of(node, depth, optional)
        if branch.rest:
            yield from self._walked(branch.rest, depth, optional)
        for key in grammar.required:
            if key not in counts and not _replaced(key, grammar, branch):
                name = DICTIONARY.by_key[key].name
                yield AvpError(ResultCode.MISSING_AVP, f"{name} is missing", missing_avp(key))

    def _surplus(self, node: Node, grammar: Grammar, count: int) -> Iterator[AvpError]:
        limit = grammar.maxima.get(node.key)
        if limit is None or count <= limit or node.definition is None or _has_empty_vendor(node):
            return
        copy = padded(node.octets)
        if limit == 0:
            yield AvpError(ResultCode.AVP_NOT_ALLOWED, f"{node.name} is not allowed here", copy)
            return
        sentence = f"{node.name} occurs more often than the {limit} allowed"
        yield AvpError(ResultCode.AVP_OCCURS_TOO_MANY_TIMES, sentence, copy)

    def _of(self, node: Node, depth: int, optional: bool) -> Iterator[AvpError]:
        if _has_empty_vendor(node) or not node.is_group:
            yield from self._walked(padded(node.octets), depth, optional)
        elif node.code == _FAILED_AVP and not node.vendor:
            return
        elif depth >= MAX_DEPTH:
            yield from self._walked(padded(node.octets), depth, optional)
        else:
            assert node.definition is not None
            inner = node.definition.grammar or _OPEN
            inner_optional = optional or not node.flags & AvpFlag.MANDATORY
            for error in self.within(node, inner, depth + 1, inner_optional):
                # The Failed-AVP shows the path: the group, holding only the offending AVP.
                error.failed_avp = raw_avp(node.code, node.vendor, node.flags, error.failed_avp or b"")
                yield error

    def _walked(self, octets: bytes, depth: int, optional: bool) -> Iterator[AvpError]:
        """What the server's walk says of octets that hold one AVP, or none."""
        try:
            Walk(octets, self._application).members(0, len(octets), _OPEN, depth, optional)
        except AvpError as error:
            yield error


def _has_empty_vendor(node: Node) -> bool:
    """The V bit with Vendor-Id 0: no AVP of anybody."""
    return node.flags & AvpFlag.VENDOR != 0 and node.key < _FIRST_VENDOR_KEY


def _replaced(key: int, grammar: Grammar, branch: Branch) -> bool:
    """Whether another AVP makes up for a missing one by holding it."""
    other = grammar.instead.get(key)
    return other is not None and any(
        node.key == other and any(member.key == key for member in node.members) for node in branch.members
    )


# -- remarks -----------------------------------------------------------------------------------------------------


def fault_remarks(message: DecodedMessage) -> Iterator[Remark]:
    """The error of a message, then all others."""
    if message.found.missing:
        yield _cut_off(message)
        return
    first = message.error
    if first is not None:
        yield _remark(message, first, is_first=True)
        if not isinstance(first, AvpError) and first.result_code != ResultCode.INVALID_HDR_BITS:
            return
    elif message.definition is None:
        yield Remark(
            Kind.NOTE, f"command {message.command} is not in the dictionary: its grammar was not checked", 9, ""
        )
    told = {(first.result_code, first.message)} if first is not None else set()
    for error in avp_errors(message):
        if (error.result_code, error.message) not in told and not _repeats_its_request(message, error):
            told.add((error.result_code, error.message))
            yield _remark(message, error, is_first=False)


def _cut_off(message: DecodedMessage) -> Remark:
    missing = message.found.missing
    where = "in the capture" if message.found.flow is not None else "here"
    return Remark(
        Kind.ERROR,
        f"the message has {message.length} octets by its length field, the last {missing} are not {where}: "
        "a receiver waits for them, or refuses a message of that length with 5015",
        14,
        "RFC 6733 section 3",
    )


def _remark(message: DecodedMessage, error: DiameterError, *, is_first: bool) -> Remark:
    row, clause = _SOURCES.get(error.result_code, _ELSE)
    code = f"{error.result_code} ({result_name(error.result_code)})"
    failed = path_text(error)
    shown = f", Failed-AVP {failed}" if failed else ""
    if not message.is_request:
        silently = _dropped(message)
        text = f"{error.message}: as {code}{shown}, such an answer may be discarded{silently}"
    elif message.command in _TO_CLIENTS:
        text = f"{error.message}: its receiver answers {code}{shown}"
    elif is_first:
        text = f"{error.message}: the server answers {code}{shown}"
        if error.close:
            text += " and closes the connection"
    else:
        text = f"{error.message}: {code}{shown}, not reported because it is not the first error"
    return Remark(Kind.ERROR, text, row, clause)


def _dropped(message: DecodedMessage) -> str:
    code = message.result_code or 0
    return "; clients built on freeDiameter drop it in silence" if 2000 <= code < 3000 else ""


def path_text(error: DiameterError) -> str:
    """'Multiple-Services-Credit-Control > Rating-Group' of what the Failed-AVP of an error holds."""
    parts: list[str] = []
    rest = error.failed_avp or b""
    while rest:
        nodes, _ = split(rest, MAX_DEPTH)
        if not nodes:
            break
        node = nodes[0]
        parts.append(node.name if node.definition is not None else f"AVP {node.code}/{node.vendor}")
        # What is at fault is there with all that is in it, the groups around it hold nothing else.
        if not node.is_group or error.message.startswith(f"{node.name} ") or len(parts) > MAX_DEPTH:
            break
        rest = node.data
    return " > ".join(parts)
