"""Plans: prices by zone, price lists, what else a plan says; allowances, bonuses and what offers cost and give."""

from pathlib import Path

import pytest

from balance.model import UNLIMITED, Unit
from occ.rating.allowances import Allowance, Bonus, Lasting, Validity
from occ.rating.catalogue import Catalogue, load_catalogue
from occ.rating.offers import Every, Offer, Starts
from occ.rating.price import CallPrice, FreePrice, StepPrice
from occ.rating.tariff import Price
from occ.yamlmap import ConfigError

HEAD = """\
version: test
currency: EUR
destinations:
  national: [49]
  eu: [33, 43]
  russia: [7]
networks:
  home: [26201]
  eu: [208]
  world: any
services:
  calls: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, validity: 5 min, role: originating}
  abroad: {context: 32260@3gpp.org, unit: seconds, quota: 60 s, validity: 5 min, destinations: [eu, russia]}
  data: {context: 32251@3gpp.org, unit: octets, quota: 1 MiB, validity: 5 min}
"""
LINES = HEAD.count("\n")
PLAN = "plans:\n  one:\n    data: 0.01 per 1 MiB\n"


def load(tmp_path: Path, rest: str, head: str = HEAD, **files: str) -> Catalogue:
    (tmp_path / "catalogue.yaml").write_text(head + rest)
    for name, content in files.items():
        (tmp_path / f"{name}.csv").write_text(content)
    return load_catalogue(tmp_path / "catalogue.yaml")


def mistake(tmp_path: Path, rest: str, **files: str) -> str:
    """What is said, without the directory; lines of the catalogue counted from the first of ``rest``."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, rest, **files)
    assert "\n" not in str(caught.value)
    line = caught.value.line
    source = caught.value.source.removeprefix(f"{tmp_path}/")
    if source == "catalogue.yaml" and line is not None:
        line -= LINES
    return f"{source}:{line}: {caught.value.message}"


def price(catalogue: Catalogue, service: str, zone: str = "", at_ms: int = 0) -> Price | None:
    tariff = catalogue.tariff("one", service, zone)
    return None if tariff is None else tariff.at(at_ms)[0]


def per_minute(micro: int) -> StepPrice:
    return StepPrice(Unit.SECONDS, 60, micro)


# -- by zone -------------------------------------------------------------------------------------------------------

ZONES = """\
plans:
  one:
    calls:
      by_destination:
        eu: 0.19 per 60 s
        russia:
          08:00: 0.49 per 60 s
          20:00: {connection: 0.05, price: 0.39 per 60 s}
    abroad:
      by_destination: {eu: denied, others: 0.99 per 60 s}
    data:
      by_network: {eu: 0.01 per 1 MiB}
"""


def test_prices_by_zone(tmp_path: Path) -> None:
    catalogue = load(tmp_path, ZONES)
    assert price(catalogue, "calls", "eu") == per_minute(190_000)
    assert price(catalogue, "calls", "russia", 9 * 3_600_000) == per_minute(490_000)
    assert price(catalogue, "calls", "russia") == CallPrice(per_minute(390_000), 50_000)
    assert price(catalogue, "calls", "national") is None  # not sold there
    assert price(catalogue, "calls") is None
    assert price(catalogue, "abroad", "russia") == per_minute(990_000)
    assert price(catalogue, "data", "eu") == StepPrice(Unit.OCTETS, 1 << 20, 10_000)
    assert price(catalogue, "data", "home") is None


@pytest.mark.parametrize(
    ("replaced", "by", "said"),
    [
        ("eu: 0.19", "europe: 0.19", "catalogue.yaml:5: there is no zone 'europe' in destinations; known: "),
        (
            "eu: 0.19 per 60 s",
            "eu: 0.19 per 1 MiB",
            "catalogue.yaml:5: plans.one.calls.by_destination.eu: 'MiB' is no ",
        ),
        ("{eu: denied,", "{national: denied,", "catalogue.yaml:10: the price for national would never be used: the "),
        ("by_network: {eu", "by_network: {russia", "catalogue.yaml:12: there is no zone 'russia' in networks; known: "),
        (
            "by_network: {eu: 0.01 per 1 MiB}",
            "by_network: {}",
            "catalogue.yaml:12: plans.one.data.by_network must price",
        ),
        ("by_network", "by_networks", "catalogue.yaml:12: "),
    ],
)
def test_mistakes_in_prices_by_zone(tmp_path: Path, replaced: str, by: str, said: str) -> None:
    assert replaced in ZONES
    assert mistake(tmp_path, ZONES.replace(replaced, by)).startswith(said)


def test_plans_agree_by_what_a_service_is_priced(tmp_path: Path) -> None:
    said = mistake(tmp_path, ZONES + "  two:\n    data:\n      by_destination: {eu: free}\n")
    assert said.startswith("catalogue.yaml:15: plans.two.data.by_destination: data is priced by_network at ")
    assert f"catalogue.yaml:{LINES + 12}" in said


def test_zones_need_their_section(tmp_path: Path) -> None:
    head = HEAD.replace("destinations:\n  national: [49]\n  eu: [33, 43]\n  russia: [7]\n", "").replace(
        ", destinations: [eu, russia]", ", pool: 1"
    )
    with pytest.raises(ConfigError, match="needs the section 'destinations'"):
        load(tmp_path, ZONES, head)


# -- price lists ---------------------------------------------------------------------------------------------------

LIST = "plans:\n  one:\n    prices_from: prices.csv\n"
WORLD = "plans:\n  one:\n    calls: {by_destination: {prices_from: prices.csv, others: 0.99 per 60 s}}\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_price_list_of_services(tmp_path: Path, delimiter: str) -> None:
    rows = ["Service,Price,From", "data,free,", "calls,0.09 per 60 s,08:00", "", "calls,0.05 per 60 s,20:00", ",,"]
    prices = "\n".join(rows).replace(",", delimiter)
    catalogue = load(tmp_path, LIST, prices=prices)
    assert price(catalogue, "data") == FreePrice(Unit.OCTETS)
    assert price(catalogue, "calls") == per_minute(50_000)
    assert price(catalogue, "calls", at_ms=9 * 3_600_000) == per_minute(90_000)


def test_a_price_list_of_zones_with_all_that_a_price_can_say(tmp_path: Path) -> None:
    prices = "\ufeffzone;price;connection;minimum\neu;0.19 per 60 s;;\nrussia;0.49 per 60 s;0.10;0.20\n"
    catalogue = load(tmp_path, WORLD, prices=prices)
    assert price(catalogue, "calls", "eu") == per_minute(190_000)
    assert price(catalogue, "calls", "russia") == CallPrice(per_minute(490_000), 100_000, minimum_micro=200_000)
    assert price(catalogue, "calls", "national") == per_minute(990_000)


@pytest.mark.parametrize(
    ("plans", "prices", "said"),
    [
        (LIST, "service,prize\n", "prices.csv:1: the first row must name the columns, and price is missing there"),
        (LIST, "", "prices.csv:1: the first row must name the columns, and service is missing there"),
        (LIST, "service,price\n", "prices.csv:1: the price list has no prices"),
        (LIST, "service,price,price\n", "prices.csv:1: the column price stands twice"),
        (LIST, "service,,price\n", "prices.csv:1: a column has no name"),
        (LIST, "service,price\ncall,free\n", "prices.csv:2: there is no service 'call'; did you mean 'calls'?"),
        (LIST, "service,price\ndata,free\ncalls\n", "prices.csv:3: the column price is empty"),
        (LIST, "service,price\n,free\n", "prices.csv:2: the column service is empty"),
        (LIST, "service,price\ndata,free,x\n", "prices.csv:2: 3 columns, where the heading has 2"),
        (LIST, "service,price\ndata,0.1 per 60 s\n", "prices.csv:2: plans.one.prices_from.data: 's' is no unit for"),
        (
            LIST,
            "service,price\ndata,free\n\ndata,free\n",
            "prices.csv:2: data has several prices: name in the column fr",
        ),
        (
            LIST,
            "service,price,from\ndata,free,08:00\ndata,free,08:00\n",
            "prices.csv:3: data has two prices from 08:00,",
        ),
        (LIST, "service,price,from\ndata,free,8\n", "prices.csv:2: a price begins at a time such as '08:00'"),
        (
            LIST,
            "service,price,minimun\ndata,free,1\n",
            "prices.csv:2: unknown key 'minimun' in plans.one.prices_from.da",
        ),
        (LIST, 'service,price\ndata,"free\n', "prices.csv:2: is not valid CSV"),
        (
            LIST + "    data: free\n",
            "service,price\ndata,free\n",
            "catalogue.yaml:4: plans.one.data: data has a price at",
        ),
        (LIST.replace("prices.csv", "none.csv"), "", "catalogue.yaml:3: plans.one.prices_from: "),
        (WORLD, "zone,price\nmars,free\n", "prices.csv:2: there is no zone 'mars' in destinations; known: "),
        (
            WORLD,
            "zone,price\nothers,free\n",
            "catalogue.yaml:3: plans.one.calls.by_destination.others: the zone others",
        ),
    ],
)
def test_mistakes_in_price_lists(tmp_path: Path, plans: str, prices: str, said: str) -> None:
    assert mistake(tmp_path, plans, prices=prices).startswith(said)


def test_a_price_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "catalogue.yaml").write_text(HEAD + LIST)
    (tmp_path / "prices.csv").write_bytes(b"service,price\ndata,\xff\n")
    with pytest.raises(ConfigError, match=r"prices\.csv:2: is not UTF-8 text"):
        load_catalogue(tmp_path / "catalogue.yaml")


# -- what else a plan says -------------------------------------------------------------------------------------------


def test_currency_caps_and_offers_of_a_plan(tmp_path: Path) -> None:
    rest = (
        "offers: {small: {every: month, fee: 1.00}}\n"
        + PLAN
        + ("    currency: USD\n    includes: [small]\n    caps: {data: 5.00 per day}\n  two:\n    data: free\n")
    )
    catalogue = load(tmp_path, rest)
    assert [catalogue.currency_of(plan) for plan in ("one", "two", "none")] == [840, 978, 978]
    assert [catalogue.includes(plan) for plan in ("one", "two", "none")] == [("small",), (), ()]
    assert [(cap.name, cap.limit_micro) for cap in catalogue.caps("one", "data")] == [("data", 5_000_000)]
    assert catalogue.caps("one", "calls") == catalogue.caps("two", "data") == catalogue.caps("none", "data") == ()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (
            "currency: usd",
            "catalogue.yaml:4: plans.one.currency must be a code of ISO 4217 such as EUR, not 'usd'; did",
        ),
        ("includes: [smal]", "catalogue.yaml:4: plans.one.includes[0]: there is no offer 'smal'"),
        ("caps: {data: 5.00}", "catalogue.yaml:4: "),
        ("dat: free", "catalogue.yaml:4: unknown key 'dat' in plans.one; did you mean 'data'?"),
    ],
)
def test_mistakes_in_a_plan(tmp_path: Path, more: str, said: str) -> None:
    assert mistake(tmp_path, f"{PLAN}    {more}\n").startswith(said)


def test_a_service_cannot_be_called_like_a_word_of_plans(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a service cannot be called caps"):
        load(tmp_path, PLAN, HEAD.replace("  data:", "  caps:"))


# -- allowances, bonuses, offers -------------------------------------------------------------------------------------

GIVEN = """\
allowances:
  small-data: {amount: 5 GiB, serves: [data], priority: 10, valid: 30 d, rollover: 1 GiB, shared: yes}
  minutes: {amount: 100 min, serves: [calls, abroad], rollover: all}
bonuses:
  talk: {serves: [calls], valid: until end of month, amount: 2.00}
  anything: {serves: any, priority: 5}
offers:
  flat: {fee: 9.99, every: month, starts: first of month, prorated: yes, gives: [small-data, talk], if_unpaid: RETRY}
  pass: {every: 12 h, gives: [minutes], if_unpaid: retry every 6 h}
  setup: {fee: 20.00, every: once}
""".replace("RETRY", "retry every day")


def test_what_is_given(tmp_path: Path) -> None:
    catalogue = load(tmp_path, GIVEN + PLAN)
    assert catalogue.allowance("small-data") == Allowance(
        "small-data", Unit.OCTETS, 5 << 30, ("data",), 10, Validity(Lasting.TIME, 30 * 86_400), 1 << 30, shared=True
    )
    minutes = Allowance("minutes", Unit.SECONDS, 6000, ("calls", "abroad"), rollover_units=UNLIMITED)
    assert catalogue.allowance("minutes") == minutes
    assert catalogue.bonus("talk") == Bonus("talk", ("calls",), 100, Validity(Lasting.END_OF_MONTH), 2_000_000)
    assert catalogue.offer("flat") == Offer(
        "flat", 9_990_000, Every.MONTH, 0, Starts.FIRST_OF_MONTH, True, ("small-data", "talk"), 86_400
    )
    assert catalogue.offer("pass") == Offer("pass", 0, Every.TIME, 43_200, gives=("minutes",), retry_s=21_600)
    assert catalogue.offer("setup") == Offer("setup", 20_000_000, Every.ONCE)
    assert catalogue.allowances_for("data") == ("small-data", "anything")
    assert catalogue.allowances_for("calls") == ("minutes", "talk", "anything")
    assert catalogue.allowances_for("nothing") == ()
    assert (catalogue.allowance("talk"), catalogue.bonus("minutes"), catalogue.offer("talk")) == (None, None, None)


def test_fees_are_raised_by_tax_where_prices_are_exclusive(tmp_path: Path) -> None:
    catalogue = load(tmp_path, "tax: {rate: 19 %, prices: exclusive}\n" + GIVEN + PLAN)
    flat = catalogue.offer("flat")
    assert flat is not None
    assert flat.fee_micro == 11_888_100
    assert price(catalogue, "data") == StepPrice(Unit.OCTETS, 1 << 20, 11_900)


@pytest.mark.parametrize(
    ("replaced", "by", "said"),
    [
        ("serves: [data], priority", "serves: [dat], priority", "2: allowances.small-data.serves[0]: there is no serv"),
        ("serves: [data], priority", "serves: [calls], priority", "2: small-data is an amount of octets, but calls is"),
        ("serves: [data], priority", "serves: [data, data], priority", "2: data stands twice in allowances.small-data"),
        ("serves: [data], priority", "serves: [], priority", "2: allowances.small-data.serves must name at least one"),
        ("amount: 5 GiB", "amount: 5 Gib", "2: allowances.small-data.amount must be an amount such as '5 GiB', '100 "),
        ("amount: 5 GiB", "amount: 5.5 GiB", "2: allowances.small-data.amount: '5.5 GiB' is not a size"),
        ("priority: 10", "priority: 0", "2: allowances.small-data.priority must be a whole number from 1 to 1000"),
        ("valid: 30 d", "valid: 30 days", "2: allowances.small-data.valid must be a time such as '30 d', 'until end "),
        ("valid: 30 d", "valid: 99999 d", "2: allowances.small-data.valid must be at most 100 years"),
        ("rollover: 1 GiB", "rollover: some", "2: allowances.small-data.rollover must be 'all', 'none' or a size: "),
        ("shared: yes", "shared: perhaps", "2: allowances.small-data.shared must be true or false"),
        ("  talk:", "  minutes:", "5: bonuses.minutes: there is an allowance of that name; give it another"),
        ("amount: 2.00", "amount: 0", "5: bonuses.talk.amount must be more than zero"),
        ("amount: 2.00", "amount: two", "5: bonuses.talk.amount: 'two' is not an amount of money"),
        ("fee: 9.99", "fee: -1", "8: offers.flat.fee must be more than zero"),
        ("every: month", "every: year", "8: offers.flat.every must be once, day, week, month or a time such as '30 d'"),
        ("every: 12 h", "every: 10 s", "9: offers.pass.every must be from 1 h to 10 years"),
        ("every: once", "starts: at once", "10: key 'every' is missing in offers.setup"),
        ("{fee: 20.00, every: once}", "{every: once}", "10: offers.setup must have a fee or give something"),
        ("every: 12 h", "every: 12 h, starts: first of month", "9: offers.pass.starts is for what is charged every m"),
        ("every: 12 h", "every: 12 h, prorated: yes", "9: offers.pass.prorated needs 'starts: first of month'"),
        ("gives: [minutes]", "gives: [hours]", "9: offers.pass.gives[0]: there is no allowance or bonus 'hours'"),
        ("gives: [minutes]", "gives: [anything]", "9: offers.pass.gives[0]: the bonus anything must say its amount"),
        ("retry every day", "retry sometimes", "8: offers.flat.if_unpaid must be 'suspend', 'retry every day' or"),
        ("retry every 6 h", "retry every 6 s", "9: offers.pass.if_unpaid must be from 1 h to 10 years"),
    ],
)  # fmt: skip
def test_mistakes_in_what_is_given(tmp_path: Path, replaced: str, by: str, said: str) -> None:
    assert replaced in GIVEN
    assert mistake(tmp_path, GIVEN.replace(replaced, by) + PLAN).startswith(f"catalogue.yaml:{said}")
