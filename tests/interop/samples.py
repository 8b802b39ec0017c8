"""One of everything that the encoders of credit control can write.

The values are made from the types of the models' fields, so that a field added to a model is in the samples from
then on. What the values mean together does not matter: each AVP is there once, in its place.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, Union

from protocols.credit_control import (
    AbortSessionRequest,
    CreditControlAnswer,
    CreditControlRequest,
    ReAuthRequest,
    ServiceAnswer,
    Units,
    bandwidth_filter_rule,
    encode_answer,
    encode_asr,
    encode_rar,
)
from protocols.diameter.codec import avp

T = TypeVar("T")

ORIGIN = avp("Origin-Host", "occ1.ocs.example.net") + avp("Origin-Realm", "ocs.example.net")
PROXY_INFO = avp("Proxy-Info", [avp("Proxy-Host", "relay.example.net"), avp("Proxy-State", b"\x01")])
SESSION_ID = b"pgw.example.net;1;2"

REDIRECT_ADDRESSES = {
    0: b"192.0.2.1",
    1: b"2001:db8::1",
    2: b"http://top-up.example.net/",
    3: b"sip:top-up@example.net",
}
"""Redirect-Server-Address by Redirect-Address-Type (RFC 8506 section 8.38)."""

WRITTEN: dict[str, Any] = {
    "failed_avp": avp("Rating-Group", 77),
    # Any AVP that may stand in any number wherever AVPs may.
    "members": avp("Route-Record", "relay.example.net"),
    "filter_rules": (bandwidth_filter_rule(64_000),),
    "redirect_address_type": 2,
    "redirect_server_address": REDIRECT_ADDRESSES[2],
}
"""Values of fields that take more than their type says."""

NOT_IN_ANSWERS: dict[type, frozenset[str]] = {Units: frozenset({"tariff_change_usage", "reporting_reason"})}
"""Fields that occur in used units only, which an answer has none of (RFC 8506 sections 8.19 and 8.27)."""

NOT_LEFT_OUT = frozenset({"redirect_address_type"})
"""Fields without which another one means something else."""


def complete(model: type[T], **values: Any) -> T:
    """An object of a dataclass with every field set: to ``values``, else to something of the field's type.

    Raises TypeError for a type that nothing is known of here.
    """
    hints = typing.get_type_hints(model)
    assert dataclasses.is_dataclass(model)
    names = [each.name for each in dataclasses.fields(model) if each.name not in NOT_IN_ANSWERS.get(model, ())]
    return model(**{name: values[name] if name in values else _value(name, hints[name]) for name in names})


def without_each_field(answer: Any) -> Iterator[tuple[str, Any]]:
    """The same dataclass but for one optional field each, with the field's name; also inside services and units."""
    for each in dataclasses.fields(answer):
        if each.name in NOT_LEFT_OUT or each.name in NOT_IN_ANSWERS.get(type(answer), ()):
            continue
        value = getattr(answer, each.name)
        if each.default is not dataclasses.MISSING:
            yield each.name, dataclasses.replace(answer, **{each.name: each.default})
        elif each.default_factory is not dataclasses.MISSING:
            yield each.name, dataclasses.replace(answer, **{each.name: each.default_factory()})
        inner = value[0] if isinstance(value, (tuple, list)) and value else value
        if dataclasses.is_dataclass(inner):
            for name, changed in without_each_field(inner):
                whole = changed if inner is value else type(value)([changed])
                yield f"{each.name}.{name}", dataclasses.replace(answer, **{each.name: whole})


def credit_control_request() -> CreditControlRequest:
    """What an answer repeats of its request, all of it."""
    return CreditControlRequest(
        flags=0xC0,
        hop_by_hop=1,
        end_to_end=2,
        session_id=SESSION_ID,
        origin_host=b"pgw.example.net",
        origin_realm=b"ocs.example.net",
        destination_realm=b"ocs.example.net",
        service_context_id=b"32251@3gpp.org",
        request_type=2,
        request_number=1,
        sub_session_id=3,
        proxy_infos=PROXY_INFO * 2,
    )


def complete_answer() -> CreditControlAnswer:
    """An answer with everything an answer can have."""
    return complete(CreditControlAnswer, result_code=2001)


def answers() -> dict[str, bytes]:
    """Encoded answers by a name each: the complete one, those without one field each, and some others."""
    request = credit_control_request()
    whole = complete_answer()
    named = {"all fields": whole} | {f"all but {name}": changed for name, changed in without_each_field(whole)}
    for action in (0, 1, 2):
        service = complete(ServiceAnswer, final_unit_action=action)
        named[f"Final-Unit-Action {action}"] = CreditControlAnswer(2001, [service, service])
    for kind, address in REDIRECT_ADDRESSES.items():
        service = complete(ServiceAnswer, redirect_address_type=kind, redirect_server_address=address)
        named[f"Redirect-Address-Type {kind}"] = CreditControlAnswer(2001, [service])
    for code in (2001, 3002, 3004, 4010, 4011, 4012, 5003, 5012, 5030, 5031):
        named[f"Result-Code {code}"] = CreditControlAnswer(code, error_message=b"a reason")
    encoded = {name: encode_answer(request, answer, ORIGIN) for name, answer in named.items()}
    plain = dataclasses.replace(request, flags=0x80, sub_session_id=None, proxy_infos=b"")
    encoded["as little as possible"] = encode_answer(plain, CreditControlAnswer(2001), ORIGIN)
    return encoded


def requests() -> dict[str, bytes]:
    """Encoded Re-Auth- and Abort-Session-Requests, complete and without each optional field."""
    common = {
        "session_id": SESSION_ID,
        "origin_host": b"occ1.ocs.example.net",
        "origin_realm": b"ocs.example.net",
        "destination_host": b"pgw.example.net",
        "destination_realm": b"ocs.example.net",
        "flags": 0xC0,
        "proxy_infos": PROXY_INFO,
    }
    rar = complete(ReAuthRequest, re_auth_request_type=0, **common)
    asr = complete(AbortSessionRequest, **common)
    encoded = {"RAR": encode_rar(rar), "ASR": encode_asr(asr)}
    for name, changed in without_each_field(rar):
        encoded[f"RAR without {name}"] = encode_rar(changed)
    for name, shorter in without_each_field(asr):
        encoded[f"ASR without {name}"] = encode_asr(shorter)
    return encoded


def _value(name: str, hint: Any) -> Any:
    """Something of a type, or what is written down for fields of this name."""
    if name in WRITTEN:
        return WRITTEN[name]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, Union):
        return _value(name, next(each for each in arguments if each is not types.NoneType))
    if (origin is tuple and arguments[-1] is Ellipsis) or origin in (list, Sequence):
        return (_value(name, arguments[0]),)
    if origin is tuple:
        return tuple(_value(name, each) for each in arguments)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return complete(hint)
    if hint in (int, bool):
        return hint(1)
    if hint is bytes:
        return b"something"
    raise TypeError(f"{name}: a sample of {hint} must be written down here")
