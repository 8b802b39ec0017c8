"""The JSON Schema of catalogue files, for editors that complete and check YAML while it is typed.

It says what keys there are, what each is for and what form its value has. Whether what is named exists and what must go
together, only ``occ catalogue check`` knows. No section is required: a catalogue may be a folder of files.

An editor finds it by a first line such as ``# yaml-language-server: $schema=catalogue.schema.json``.
"""

from typing import Any, Final

from balance.model import Unit
from occ.rating import away, numbering, plans, tax, written_price
from occ.rating.criteria import ROLES
from occ.rating.currency import NUMERIC
from occ.rating.service import CLIENT_FAILURE, DEBIT_FAILURE, TRIGGER_TYPES, UNITS
from occ.rating.sizes import SIZES
from occ.rating.tariff import REFUSALS

__all__ = ["SECTIONS", "catalogue_schema"]

Schema = dict[str, Any]

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_NAME: Final = "^[a-z0-9][a-z0-9._-]{0,63}$"
_WORDS: Final = sorted({word for words in SIZES.values() for word in words})
_SIZE: Final = rf"^[1-9][0-9]{{0,14}} ({'|'.join(_WORDS)})$"
_TIME: Final = rf"^[1-9][0-9]{{0,14}} ({'|'.join(SIZES[Unit.SECONDS])})$"
_AMOUNT: Final = r"^[0-9]{1,15}(\.[0-9]{1,6})?$"
_STEP: Final = rf"^[0-9]{{1,15}}(\.[0-9]{{1,6}})? per [1-9][0-9]{{0,14}} ({'|'.join(_WORDS)})$"
_BEGINNING: Final = r"^([A-Za-z,-]+ )?([01][0-9]|2[0-3]):[0-5][0-9]$"
_LIMIT: Final = r"^[0-9]{1,15}(\.[0-9]{1,6})? per (day|month)$"


def _text(about: str = "", pattern: str = "") -> Schema:
    return _about({"type": "string"} | ({"pattern": pattern} if pattern else {}), about)


def _about(schema: Schema, about: str) -> Schema:
    return schema | ({"description": about} if about else {})


def _words(*words: str, about: str = "") -> Schema:
    return _about({"enum": list(words)}, about)


def _yes_no(about: str = "") -> Schema:
    return _about({"enum": [True, False, "yes", "no", "true", "false", "on", "off"]}, about)


def _any_of(*schemas: Schema, about: str = "") -> Schema:
    return _about({"anyOf": list(schemas)}, about)


def _list(item: Schema, about: str = "") -> Schema:
    return _about({"type": "array", "items": item}, about)


def _one_or_more(item: Schema, about: str = "") -> Schema:
    return _any_of(item, _list(item), about=about)


def _mapping(properties: Schema, about: str = "", required: tuple[str, ...] = ()) -> Schema:
    closed: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return _about(closed | ({"required": list(required)} if required else {}), about)


def _named(value: Schema, about: str = "") -> Schema:
    """Names of one's own, each with such a value."""
    free: Schema = {"type": "object", "propertyNames": {"pattern": _NAME}, "additionalProperties": value}
    return _about(free, about)


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _amount(about: str = "") -> Schema:
    return _any_of({"type": "number", "minimum": 0}, {"type": "string", "pattern": _AMOUNT}, about=about)


_NUMBERS: Final = _any_of(
    {"const": "any"}, _list(_any_of({"type": "integer", "minimum": 0, "maximum": 0xFFFFFFFF}, {"const": "none"}))
)
_DIGITS: Final = _any_of({"type": "integer", "minimum": 0}, {"type": "string"})
_COUNT: Final = {"type": "integer", "minimum": 1, "maximum": away.LARGEST_COUNT}
_NAMES: Final = _list(_text(pattern=_NAME))
_DATE: Final = _text(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}$")
_SERVICE: Final = _mapping(
    {
        "context": _text("Service-Context-Id, or how it ends"),
        "unit": _words(*UNITS, about="what usage is counted in"),
        "quota": _text("granted when the client leaves the amount to the server", _SIZE),
        "maximum_quota": _text("largest single grant", _SIZE),
        "validity": _text("the client reports after this at the latest", _TIME),
        "rating_groups": _about(_NUMBERS, "Rating-Groups; none stands for a request that names none"),
        "service_identifiers": _about(_NUMBERS, "Service-Identifiers, as rating_groups"),
        "apn": _one_or_more(_text(), "access point names, * for any letters"),
        "destinations": _one_or_more(_text(pattern=_NAME), "zones of the called number"),
        "networks": _one_or_more(_text(pattern=_NAME), "zones of the serving network"),
        "sip_methods": _one_or_more(_text(pattern="^[A-Z]{1,32}$"), "such as INVITE, MESSAGE"),
        "role": _words(*ROLES, about="Role-Of-Node"),
        "essential": _yes_no("granted whatever state the subscriber is in, such as emergency calls"),
        "report_early": _text("the client asks for more when this much is left", _SIZE),
        "holding_time": _text(
            "a quota without traffic for so long is given back; none: it is kept", rf"{_TIME}|^none$|^0 s$"
        ),
        "consumption_time": _text("time stops so long after the last traffic", _TIME),
        "pool": _about({"type": "integer", "minimum": 1}, "services of one number share their quotas"),
        "reauthorise_on": _list(_words(*TRIGGER_TYPES), "events on which the client asks anew"),
        "client_failure": _words(*CLIENT_FAILURE, about="what clients do while no server answers"),
        "debit_failure": _words(*DEBIT_FAILURE, about="the same for a direct debit"),
        "failover": _yes_no("sessions may go on through another peer"),
        "usage_beyond_grant": _words("charge", "waive", about="what a client lets through on top of its grant"),
        "tariff_switch": _words("one-quota", "two-quotas", about="what is granted across a change of price"),
        "when_used_up": _any_of(
            _words("terminate", "restrict"),
            _mapping(
                {
                    "redirect_to": _text("URL, SIP URI or IP address"),
                    "restrict_to": _one_or_more(_text(), "Filter-Ids: rules that the gateway knows by name"),
                    "allow": _one_or_more(_text(), "IPFilterRules of what stays reachable"),
                    "bandwidth": _text("and how fast", "^[1-9][0-9]{0,9} (bit|kbit|Mbit|Gbit)/s$"),
                    "qos_indication": _yes_no("send QoS-Final-Unit-Indication as well"),
                    "ask_again_after": _text("when the client asks whether there is money again", _TIME),
                }
            ),
            about="what the client does when the credit is used up",
        ),
        "when_store_is_away": _any_of(
            _words("refuse"),
            _mapping(
                {
                    "grant": _text("largest single grant", _SIZE),
                    "per_session": _text("all grants of one session", _SIZE),
                    "grants_per_session": _COUNT,
                    "sessions": _COUNT,
                    "grants": _COUNT,
                    "for": _text("so long after the loss of the store", _TIME),
                    "unknown_subscribers": _words("refuse", "grant", about="those that the worker has not seen lately"),
                },
                required=away.NEEDED,
            ),
            about="what is granted while the store cannot be reached; settled when it is back",
        ),
    },
    required=("context", "unit", "quota", "validity"),
)
_STEPS: Final = _text("so much for each started step, or free", rf"{_STEP}|^{written_price.FREE}$")
_PRICE: Final = _any_of(
    _STEPS,
    _words(*REFUSALS),
    _mapping(
        {
            "price": _about(_STEPS, "of all units"),
            "connection": _amount("fee when the first unit is charged"),
            "first": _text("first increment, charged in full", _STEP),
            "then": _about(_STEPS, "of what follows the first increment"),
            "minimum": _amount("a session that costs anything costs this at least"),
            "free": _text("the first units of a session cost nothing", _SIZE),
            "tiers": _list(
                _mapping({"up_to": _text(pattern=_SIZE), "price": _STEPS}, required=("price",)),
                "prices by volume; the last has no up_to",
            ),
            "counted": _words("session", "day", "month", about="what the volume of tiers is counted over"),
        }
    ),
)
_PRICES: Final = _any_of(
    _ref("price"),
    {"type": "object", "patternProperties": {_BEGINNING: _ref("price")}, "additionalProperties": False},
    about="a price, or prices by time: beginnings such as 08:00, Mo-Fr 07:00, holidays 00:00",
)
_BY_ZONE: Final = {
    "type": "object",
    "properties": {plans.PRICES_FROM: _text("CSV file: columns zone and price")},
    "propertyNames": {"pattern": _NAME},
    "additionalProperties": _ref("prices"),
    "description": "prices by zone; others: every zone that is not named",
}
_PLAN: Final = {
    "type": "object",
    "properties": {
        "currency": _words(*NUMERIC, about="left out: that of the catalogue"),
        "includes": _about(_NAMES, "offers that come with the plan"),
        plans.PRICES_FROM: _text("CSV file: columns service and price"),
        "caps": {
            "type": "object",
            "additionalProperties": _any_of(
                _one_or_more(_text(pattern=_LIMIT)),
                _mapping({"services": _NAMES, "limit": _one_or_more(_text(pattern=_LIMIT))}, "", ("services", "limit")),
            ),
            "description": "the most that a service, all, or a list costs: 5.00 per day, 50.00 per month",
        },
    },
    "propertyNames": {"pattern": _NAME},
    "additionalProperties": _any_of(
        _ref("prices"), _mapping({plans.BY_DESTINATION: _BY_ZONE}), _mapping({plans.BY_NETWORK: _BY_ZONE})
    ),
}
_VALID: Final = _text("how long it is valid; left out: until it is renewed", rf"{_TIME}|^until end of (day|month)$")
_PRIORITY: Final = _about({"type": "integer", "minimum": 1, "maximum": 1000}, "lower ones are spent first")
_ALLOWANCE: Final = _mapping(
    {
        "amount": _text("such as 5 GiB, 100 min, 50 events", _SIZE),
        "serves": _about(_NAMES, "services it may be spent on"),
        "priority": _PRIORITY,
        "valid": _VALID,
        "rollover": _text("kept when it is renewed", rf"{_SIZE}|^all$|^none$"),
        "shared": _yes_no("by all subscribers of the account"),
    },
    required=("amount", "serves"),
)
_BONUS: Final = _mapping(
    {
        "serves": _any_of({"const": "any"}, _NAMES, about="services it may be spent on"),
        "priority": _PRIORITY,
        "valid": _VALID,
        "amount": _amount("what an offer gives of it"),
    },
    required=("serves",),
)
_OFFER: Final = _mapping(
    {
        "fee": _any_of(_amount(), {"const": "free"}, about="for each period"),
        "every": _text("once, day, week, month or a time such as 30 d", rf"{_TIME}|^(once|day|week|month)$"),
        "starts": _any_of(
            _words("at once", "first of month", "cycle day"),
            _text(pattern="^([1-9]|[12][0-9]|3[01]) of month$"),
            about="when a period begins",
        ),
        "prorated": _yes_no("a first month that is not whole costs, and gives, its share"),
        "gives": _about(_NAMES, "allowances, and bonuses that have an amount"),
        "if_unpaid": _text("suspend, retry every day, retry every 6 h", "^(suspend|retry every .+)$"),
    },
    required=("every",),
)
_GIVEN: Final = {
    "gives": _any_of(_amount(), _text()),
    "bucket": _text("a bonus or an allowance", _NAME),
    "valid": _VALID,
}
_PROMOTION: Final = _mapping(
    {
        "name": _text(),
        "top_up_bonus": _mapping(
            {"from": _amount("of top-ups of so much or more"), **_GIVEN, "at_most": _amount()},
            "on top of a top-up",
            ("from", "gives", "bucket"),
        ),
        "discount": _text("20 %", "^[0-9.]+ ?%$"),
        "free": _text("5 min per day, 1 GiB per month, 3 min per call"),
        "friends": _text("off calls to friends-and-family numbers", "^[0-9.]+ ?%$"),
        "loyalty": _mapping(
            {"after": _text(pattern=_TIME), **_GIVEN, "given": _words("by the clock", "at a top-up")},
            "for staying",
            ("after", "gives", "bucket"),
        ),
        "happy_hour": _mapping({"days": _text(), "from": _text(), "to": _text()}, required=("from", "to")),
        "when": _mapping(
            {
                "segment": _one_or_more(_text()),
                "from": _DATE,
                "until": _about(_DATE, "the last day"),
                "services": _NAMES,
                "plans": _NAMES,
                "usage_above": _text("10 GiB per month"),
                "active_for": _text(pattern=_TIME),
                "active_less_than": _text(pattern=_TIME),
            }
        ),
        "budget": _any_of(_amount(), _text(pattern="^[0-9]+ times$"), about="all that it may give away"),
        "stacks": _yes_no("it goes together with others that say so too"),
    },
    required=("name",),
)
_ZONES: Final = {
    "type": "object",
    "properties": {"file": _one_or_more(_text("CSV file: columns prefix or network, zone, name"))},
    "propertyNames": {"pattern": _NAME},
    "additionalProperties": _any_of({"const": "any"}, _list(_DIGITS)),
}
SECTIONS: Final[dict[str, Schema]] = {
    "version": _any_of(_text(), {"type": "number"}, about="name of this edition, as records quote it"),
    "currency": _words(*NUMERIC, about="ISO 4217"),
    "time_zone": _text("whose clock times of day are told by, such as Europe/Berlin"),
    "holidays": _list(_DATE),
    "tax": _mapping(
        {"rate": _text("19 %", "^[0-9.]+ ?%$"), "prices": _words(tax.INCLUSIVE, tax.EXCLUSIVE)}, "", ("rate", "prices")
    ),
    "numbering": _mapping(
        {
            "country_code": _DIGITS,
            "national_prefix": _DIGITS,
            "international_prefixes": _list(_DIGITS),
            "national_digits": _DIGITS,
            "home_area": _DIGITS,
            "local_digits": _DIGITS,
            "emergency": _list(_DIGITS),
            "short_codes": _list(_DIGITS),
            "ported": _words(*numbering.PORTED),
        },
        "how numbers are dialled in the operator's country",
        ("country_code",),
    ),
    "destinations": _about(_ZONES, "zones of called numbers: prefixes with country code"),
    "networks": _about(_ZONES, "zones of serving networks: MCC, or MCC and MNC"),
    "services": _named(_SERVICE, "what is charged for; the first that fits a request counts"),
    "plans": _named(_PLAN, "what each service costs whom"),
    "allowances": _named(_ALLOWANCE, "units that are paid for already"),
    "bonuses": _named(_BONUS, "money of restricted use"),
    "offers": _named(_OFFER, "what is charged by the clock, and what is given for it"),
    "promotions": _list(_PROMOTION, "what is taken off, given free or given on top"),
}
"""Sections of a catalogue."""


def catalogue_schema() -> Schema:
    """The schema of one catalogue file, JSON Schema 2020-12."""
    return {
        "$schema": DIALECT,
        "title": "OCC tariff catalogue",
        "type": "object",
        "properties": SECTIONS,
        "additionalProperties": False,
        "$defs": {"price": _PRICE, "prices": _PRICES},
    }
