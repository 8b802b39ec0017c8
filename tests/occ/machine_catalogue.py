"""What is sold to the random clients of the machines beside this, and what kinds of clients they are."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from balance.model import Rate, Unit
from occ.profiles import LENIENT, Profile
from occ.rating.catalogue import Catalogue
from occ.rating.final_units import FinalUnits
from occ.rating.price import FreePrice, StepPrice
from occ.rating.service import Service
from occ.rating.tariff import Beginning, Refusal, Tariff
from protocols.diameter.codes import FinalUnitAction
from tests.naive_catalogue import NaiveCatalogue, NaiveTariff, Price

CONTEXT = b"32251@3gpp.org"
EUR = 978

PROFILES = {
    "lenient": LENIENT,
    "no redirection": Profile("no-redirection", redirects=False, pools=False),
    "by the letter": Profile("strict", tariff_switch=True, needs_indicator=True, credit_control_not_applicable=True),
    "hasty": Profile("hasty", time_within_validity=True, shortest_validity_s=30, event_time=False),
}

REDIRECT = FinalUnits(int(FinalUnitAction.REDIRECT), 2, b"http://top-up.example.net/", ask_again_s=250)
RESTRICT = FinalUnits(int(FinalUnitAction.RESTRICT_ACCESS), filter_ids=(b"portal",), ask_again_s=60)


def _service(group: int, unit: Unit = Unit.OCTETS, validity_s: int = 100, **others: Any) -> Service:
    return Service(f"rg{group}", CONTEXT, frozenset([group]), unit, 6, 1000, validity_s, **others)


SERVICES = (
    Service("sid7", CONTEXT, None, Unit.EVENTS, 2, 1000, 300, frozenset([7])),
    Service("single", CONTEXT, frozenset([-1]), Unit.OCTETS, 6, 1000, 100, final_units=RESTRICT),
    _service(10),
    _service(20, validity_s=40),
    _service(30, Unit.SECONDS),
    _service(40, Unit.EVENTS, 300),
    _service(50, final_units=REDIRECT),
    _service(51, final_units=RESTRICT),
    _service(60, charges_overshoot=False),
    _service(70, pool=1),
    _service(71, pool=1),
    _service(72, Unit.SECONDS, pool=1),
    _service(73, pool=1, charges_overshoot=False),
    *(_service(group) for group in (80, 81, 82, 83, 84)),
    _service(110),
    _service(111, two_quotas=True),
    _service(112, Unit.SECONDS),
    _service(113, Unit.SECONDS, consumption_time_s=5),
    _service(114),
    _service(115, Unit.EVENTS),
    _service(116, charges_overshoot=False),
    _service(117, pool=2, final_units=REDIRECT),
    _service(118, pool=2),
)

_Prices = tuple[tuple[int, Price | int], ...]
_DAY: _Prices = ((0, (2, 3)), (2, (4, 9)), (3, (1, 1)), (7, (2, 3)), (20, (1, 4)))
_RISING: _Prices = ((0, (1, 1)), (3, (1, 5)), (20, (2, 2)))


def flat(*price: int) -> _Prices:
    return ((0, price[0] if len(price) == 1 else (price[0], price[1])),)


STANDARD: dict[str, _Prices] = {
    "sid7": flat(1, 2),
    "single": flat(3, 4),
    "rg10": flat(4, 7),
    "rg20": flat(1, 3),
    "rg30": flat(2, 5),
    "rg40": flat(1, 4),
    "rg50": flat(2, 3),
    "rg51": flat(1, 2),
    "rg60": flat(3, 5),
    "rg70": flat(1, 2),
    "rg71": flat(2, 6),
    "rg72": flat(1, 1),
    "rg73": flat(2, 3),
    "rg80": flat(1, 0),
    "rg81": flat(4011),
    "rg82": flat(4010),
    "rg83": flat(5003),
    "rg110": _DAY,
    "rg111": _DAY,
    "rg112": _DAY,
    "rg113": _RISING,
    "rg114": ((0, (1, 2)), (2, 4010), (4, (2, 5)), (6, 4011), (9, 5003), (10, (2, 5))),
    "rg115": ((0, (1, 3)), (3, 4011), (5, (1, 2))),
    "rg116": _RISING,
    "rg117": _RISING,
    "rg118": flat(2, 3),
}
OTHER: dict[str, _Prices] = {
    **STANDARD,
    "rg10": flat(2, 1),
    "rg20": flat(4010),
    "rg110": _RISING,
    "rg112": ((0, (4, 1)), (1, 4010), (3, (1, 2))),
}


def naive_catalogue(edition: str, services: Sequence[Service], plans: dict[str, dict[str, _Prices]]) -> NaiveCatalogue:
    names = {service.name for service in services}
    sold = {
        plan: {name: NaiveTariff(prices) for name, prices in tariffs.items() if name in names}
        for plan, tariffs in plans.items()
    }
    return NaiveCatalogue(edition, EUR, tuple(services), sold)


def real_catalogue(sold: NaiveCatalogue) -> Catalogue:
    units = {service.name: service.unit for service in sold.services}
    plans = {
        plan: {
            name: Tariff(
                tuple(Beginning(_real_price(units[name], price), minute) for minute, price in tariff.beginnings)
            )
            for name, tariff in tariffs.items()
        }
        for plan, tariffs in sold.plans.items()
    }
    return Catalogue(sold.edition, sold.currency, sold.services, plans)


def _real_price(unit: Unit, price: Price | int) -> Rate | Refusal:
    if isinstance(price, int):
        return Refusal(price)
    return StepPrice(unit, *price) if price[1] else FreePrice(unit)


def _changed() -> list[NaiveCatalogue]:
    """The catalogue; one with other prices; one that sells less, and one service in another unit."""
    dearer: dict[str, _Prices] = {
        **STANDARD,
        "rg10": flat(2, 9),
        "rg20": flat(1, 0),
        "rg60": flat(1, 1),
        "rg70": flat(1, 6),
        "rg110": flat(1, 2),
        "rg112": _RISING,
        "rg118": _DAY,
    }
    fewer = [
        replace(each, unit=Unit.SECONDS, validity_time_s=70) if each.name == "rg20" else each
        for each in SERVICES
        if each.name not in ("rg10", "rg51", "rg111")
    ]
    less: dict[str, _Prices] = {**STANDARD, "rg30": flat(4010), "rg50": flat(5003), "rg112": flat(4010)}
    del less["rg40"], less["rg113"]
    return [
        naive_catalogue("first", SERVICES, {"standard": STANDARD, "other": OTHER}),
        naive_catalogue("dearer", SERVICES, {"standard": dearer, "other": OTHER}),
        naive_catalogue("less", fewer, {"standard": less, "other": less}),
    ]


CATALOGUES = _changed()
REAL_CATALOGUES = [real_catalogue(each) for each in CATALOGUES]
