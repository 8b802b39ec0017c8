"""Capabilities exchange, watchdog and disconnect messages: what they carry and how they are built.

RFC 6733 sections 5.3 (CER, CEA), 5.4 (DPR, DPA) and 5.5 (DWR, DWA). Reading is lenient where real
peers differ from the grammar, writing follows it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from protocols.diameter import codec
from protocols.diameter.codec import Avp, Message
from protocols.diameter.codes import (
    VENDOR_3GPP,
    Application,
    Command,
    DisconnectCause,
    Flag,
    InbandSecurity,
    ResultCode,
)
from protocols.diameter.errors import AvpError
from protocols.diameter.settings import NodeSettings, is_identity

ORIGIN_HOST: Final = 264
ORIGIN_REALM: Final = 296
ORIGIN_STATE_ID: Final = 278
RESULT_CODE: Final = 268
VENDOR_ID: Final = 266
PRODUCT_NAME: Final = 269
AUTH_APPLICATION_ID: Final = 258
ACCT_APPLICATION_ID: Final = 259
VENDOR_SPECIFIC_APPLICATION_ID: Final = 260
INBAND_SECURITY_ID: Final = 299
DISCONNECT_CAUSE: Final = 273
ERROR_MESSAGE: Final = 281

_BASE: Final[int] = Application.BASE
_RELAY: Final[int] = Application.RELAY


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a CER or a CEA says about its sender (RFC 6733 5.3.1, 5.3.2)."""

    origin_host: str
    origin_realm: str
    applications: frozenset[int]
    """From 258, 259 and from inside 260, where Vendor-Id is left out of account (RFC 6733 5.3)."""
    inband_security: frozenset[int]
    vendor_id: int
    product_name: str
    origin_state_id: int | None

    def in_common(self, settings: NodeSettings) -> frozenset[int]:
        """Our applications that may be used with the sender; a relay has all of them (RFC 6733 5.3)."""
        ours = frozenset(map(int, settings.applications))
        if _RELAY in self.applications or _RELAY in ours:
            return ours
        return ours & self.applications

    def shares_security(self) -> bool:
        """Whether the sender can do without in-band security, which is all that we offer (RFC 6733 6.10)."""
        return InbandSecurity.NO_INBAND_SECURITY in self.inband_security


def read_capabilities(message: Message) -> Capabilities:
    """The capabilities in a checked CER or CEA.

    Raises AvpError 5004 for an identity that is no DiameterIdentity, 5014 for a group that does not decode.
    """
    applications = set(_integers(message.avps, AUTH_APPLICATION_ID))
    applications.update(_integers(message.avps, ACCT_APPLICATION_ID))
    for group in message.find_all(VENDOR_SPECIFIC_APPLICATION_ID):
        members = group.value()
        assert isinstance(members, list)
        applications.update(_integers(members, AUTH_APPLICATION_ID))
        applications.update(_integers(members, ACCT_APPLICATION_ID))
    vendor = message.find(VENDOR_ID)
    product = message.find(PRODUCT_NAME)
    return Capabilities(
        origin_host=_identity(message, ORIGIN_HOST),
        origin_realm=_identity(message, ORIGIN_REALM),
        applications=frozenset(applications),
        inband_security=frozenset(_integers(message.avps, INBAND_SECURITY_ID))
        or frozenset((int(InbandSecurity.NO_INBAND_SECURITY),)),
        vendor_id=_integer(vendor) if vendor is not None else 0,
        product_name=str(product.value()) if product is not None else "",
        origin_state_id=state_id(message),
    )


def state_id(message: Message) -> int | None:
    """Origin-State-Id 278, or None where it is absent or 0: nothing can be inferred (RFC 6733 8.16)."""
    found = message.find(ORIGIN_STATE_ID)
    return (_integer(found) or None) if found is not None else None


def result_code(message: Message) -> int:
    """Result-Code 268 of an answer; 0 where it has none."""
    found = message.find(RESULT_CODE)
    return _integer(found) if found is not None else 0


def error_message(message: Message) -> str:
    """Error-Message 281 of an answer, fit for a log line; empty where it has none."""
    found = message.find(ERROR_MESSAGE)
    return str(found.data, "utf-8", "replace").encode("unicode_escape").decode("ascii") if found is not None else ""


def disconnect_cause(message: Message) -> DisconnectCause:
    """Disconnect-Cause 273 of a checked DPR."""
    found = message.find(DISCONNECT_CAUSE)
    if found is None or _integer(found) not in list(DisconnectCause):
        return DisconnectCause.REBOOTING
    return DisconnectCause(_integer(found))


def checked_request(octets: bytes) -> Message:
    """A CER, DWR or DPR, held against its grammar; raises the first DiameterError.

    Neighbours know these commands by their code alone, so the header's Application-Id, which should be 0,
    is not looked at.
    """
    message = codec.decode(octets)
    codec.check(Message(message.flags, message.command, _BASE, message.hop_by_hop, message.end_to_end, message.avps))
    return message


def _integer(avp: Avp) -> int:
    value = avp.value()
    assert isinstance(value, int)
    return value


def _integers(avps: Iterable[Avp], code: int) -> Iterable[int]:
    return [_integer(avp) for avp in avps if avp.code == code and avp.vendor == 0]


def _identity(message: Message, code: int) -> str:
    found = message.find(code)
    if found is None:
        raise AvpError(ResultCode.MISSING_AVP, f"AVP {code} is missing")
    value = found.value()
    if not isinstance(value, str) or not is_identity(value):
        raise AvpError(ResultCode.INVALID_AVP_VALUE, f"AVP {code} holds no DiameterIdentity", found.encode())
    return value


class BaseMessages:
    """Builds the base protocol messages of one local node; what never changes is encoded once."""

    __slots__ = ("_advertised", "_settings", "_state_id", "origin")

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self.origin = codec.avp("Origin-Host", settings.origin_host) + codec.avp("Origin-Realm", settings.origin_realm)
        """Origin-Host and Origin-Realm, encoded."""
        self._state_id: tuple[bytes, ...] = ()
        if settings.origin_state_id:
            self._state_id = (codec.avp("Origin-State-Id", settings.origin_state_id),)
        self._advertised = tuple(_advertised(settings))

    def required_capabilities(self, local_address: str) -> bytes:
        """What CER and CEA must have. `local_address` stands in for Host-IP-Address where none is set."""
        settings = self._settings
        addresses = settings.host_ip_addresses or (local_address,)
        return b"".join(
            (
                *(codec.avp("Host-IP-Address", address) for address in addresses),
                codec.avp("Vendor-Id", settings.vendor_id),
                codec.avp("Product-Name", settings.product_name),
            )
        )

    def _own_capabilities(self, local_address: str) -> list[bytes]:
        """The AVPs that CER and CEA share."""
        return [self.required_capabilities(local_address), *self._state_id, *self._advertised]

    def capabilities_request(self, local_address: str, hop_by_hop: int, end_to_end: int) -> bytes:
        """CER (RFC 6733 5.3.1)."""
        return _request(
            Command.CAPABILITIES_EXCHANGE,
            hop_by_hop,
            end_to_end,
            [self.origin, *self._own_capabilities(local_address)],
        )

    def capabilities_answer(
        self, request: Message, local_address: str, result: int = ResultCode.SUCCESS, error_message: str = ""
    ) -> bytes:
        """CEA (RFC 6733 5.3.2) with all our applications, as a hint also where `result` refuses the peer."""
        avps = [codec.avp("Result-Code", result), self.origin, *self._own_capabilities(local_address)]
        if error_message:
            avps.append(codec.avp("Error-Message", error_message))
        return codec.answer_to(request, avps)

    def watchdog_request(self, hop_by_hop: int, end_to_end: int) -> bytes:
        """DWR (RFC 6733 5.5.1)."""
        return _request(Command.DEVICE_WATCHDOG, hop_by_hop, end_to_end, [self.origin, *self._state_id])

    def watchdog_answer(self, request: Message) -> bytes:
        """DWA (RFC 6733 5.5.2)."""
        avps = [codec.avp("Result-Code", ResultCode.SUCCESS), self.origin, *self._state_id]
        return codec.answer_to(request, avps)

    def disconnect_request(self, cause: DisconnectCause, hop_by_hop: int, end_to_end: int) -> bytes:
        """DPR (RFC 6733 5.4.1)."""
        return _request(
            Command.DISCONNECT_PEER, hop_by_hop, end_to_end, [self.origin, codec.avp("Disconnect-Cause", cause)]
        )

    def disconnect_answer(self, request: Message) -> bytes:
        """DPA (RFC 6733 5.4.2)."""
        return codec.answer_to(request, [codec.avp("Result-Code", ResultCode.SUCCESS), self.origin])


def _advertised(settings: NodeSettings) -> Iterable[bytes]:
    """Supported-Vendor-Id and our applications.

    Each application is given twice: as Auth-Application-Id, and inside Vendor-Specific-Application-Id
    with the vendor 3GPP, where Kamailio looks for its route to Ro and sends no CCR if it finds none.
    """
    for vendor in settings.supported_vendor_ids:
        yield codec.avp("Supported-Vendor-Id", vendor)
    for application in settings.applications:
        yield codec.avp("Auth-Application-Id", application)
    for application in settings.applications:
        if application != _RELAY:
            yield codec.avp(
                "Vendor-Specific-Application-Id",
                (codec.avp("Vendor-Id", VENDOR_3GPP), codec.avp("Auth-Application-Id", application)),
            )


def _request(command: int, hop_by_hop: int, end_to_end: int, avps: Iterable[bytes]) -> bytes:
    """A request of the base protocol: never proxiable (RFC 6733 5.3, 5.4, 5.5)."""
    return codec.build(command, _BASE, Flag.REQUEST, hop_by_hop, end_to_end, avps)
