"""Texts of notices: what is shipped reads right in each language, and whatever is wrong is told with file and line."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from balance.accounts import Account
from balance.model import Bucket, Unit
from balance.notices import Notice, Value
from occ.notices.formats import Context, shown
from occ.notices.templates import RenderError, Templates
from occ.notices.told import account_values
from occ.settings import SHIPPED
from occ.yamlmap import ConfigError
from protocols.smpp.text import parts_of

AT_MS = 1_772_700_000_000
"""2026-03-05 08:40 UTC."""
TOLD = {"operator": "OCC", "number": "491700000001", "channel": "smpp"}
VALUES: dict[str, Value] = {
    "balance": 1_234_567_890, "amount": 10_000_000, "limit": 50_000_000, "service": "international-voice",
    "bundle": "data-5gb", "rate": 64_000, "reason": "unpaid bill", "currency": "EUR",
}  # fmt: skip


@pytest.fixture(scope="module")
def shipped() -> Templates:
    return Templates.load(SHIPPED / "templates", "en")


def notice(template: str, values: Mapping[str, Value] = VALUES) -> Notice:
    return Notice(b"n", b"a", b"", "account-state", template, values, AT_MS)


def render(templates: Templates, name: str, language: str, values: Mapping[str, Value] = VALUES) -> str:
    text = templates.render(notice(name, values), language, TOLD, "Europe/Berlin")
    assert text.language == language
    return text.body.replace("\u00a0", " ").replace("\u202f", " ")


def test_what_is_shipped(shipped: Templates) -> None:
    assert shipped.languages == ("en", "es", "de", "ru")
    assert set(shipped.known) == {
        "low-balance", "balance-zero", "barred", "throttled", "restored", "credit-limit-reached", "top-up-received",
        "bundle-exhausted", "suspended",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "language", "text"),
    [
        ("top-up-received", "en",
         "OCC: we have received your top-up of €10.00. Your balance is now €1,234.56."),
        ("top-up-received", "es",
         "OCC: hemos recibido su recarga de 10,00 €. Su saldo es ahora de 1234,56 €."),
        ("top-up-received", "de",
         "OCC: Wir haben Ihre Aufladung über 10,00 € erhalten. Ihr Guthaben beträgt jetzt 1.234,56 €."),
        ("top-up-received", "ru",
         "OCC: ваш счёт пополнен на 10,00 €. Теперь баланс: 1 234,56 €."),
        ("suspended", "en",
         ("OCC: your line was suspended on 5 Mar 2026, 09:40 (unpaid bill). Please contact our customer service. "
         "Emergency calls always work.")),
        ("suspended", "es",
         ("OCC: su línea quedó suspendida el 5 mar 2026, 9:40 (unpaid bill). Póngase en contacto con atención al "
         "cliente. Las llamadas de emergencia funcionan siempre.")),
        ("suspended", "de",
         ("OCC: Ihr Anschluss wurde gesperrt (5. März 2026, 09:40, unpaid bill). Bitte wenden Sie sich an unseren "
         "Kundenservice. Notrufe sind immer möglich.")),
        ("suspended", "ru",
         ("OCC: обслуживание вашего номера приостановлено (5 мар. 2026 г., 09:40, unpaid bill). Обратитесь, "
         "пожалуйста, в службу поддержки. Экстренные вызовы работают всегда.")),
        ("barred", "de",
         ('OCC: "Auslandsgespräche" ist derzeit gesperrt, da Ihr Guthaben 1.234,56 € beträgt. Sobald Sie aufladen, ist '
         "der Dienst wieder verfügbar.")),
        ("throttled", "ru",
         ("OCC: скорость интернета снижена до 64 кбит/с (баланс вашего счёта: 1 234,56 €). После пополнения полная "
         "скорость сразу восстановится.")),
    ],
)  # fmt: skip
def test_texts_as_customers_read_them(shipped: Templates, name: str, language: str, text: str) -> None:
    """Money and dates as the language writes them, by the customer's clock."""
    assert render(shipped, name, language) == text


def test_texts_without_what_may_be_missing(shipped: Templates) -> None:
    assert render(shipped, "barred", "en", {}) == (
        "OCC: some of your services are not available at present. Top up, and you can use them again at once."
    )
    assert render(shipped, "credit-limit-reached", "de", {"limit": 0, "currency": "EUR"}) == (
        "OCC: Ihr Guthaben ist aufgebraucht. Bis Sie aufladen, sind nur Notrufe und das Kundenportal verfügbar."
    )
    assert render(shipped, "bundle-exhausted", "ru", {}).startswith("OCC: ваш пакет исчерпан.")
    assert "high-speed volume is used up" in render(shipped, "throttled", "en", {})


def test_every_shipped_text_is_short_enough_and_english_and_german_fit_gsm_7_bit(shipped: Templates) -> None:
    for name in shipped.known:
        for language in shipped.languages:
            parts = parts_of(render(shipped, name, language), 1)
            assert len(parts) <= 3
            if language in ("en", "de"):
                assert (len(parts), parts[0].data_coding) == (1, 0), (name, language)


@pytest.mark.parametrize(
    ("kind", "value", "texts"),
    [
        ("money", 3_209_999, ("€3.20", "3,20 €", "3,20 €", "3,20 €")),
        ("money", -3_200_001, ("-€3.21", "-3,21 €", "-3,21 €", "-3,21 €")),
        ("volume", 1_610_612_736, ("1.5 GB", "1,5 GB", "1,5 GB", "1,5 ГБ")),
        ("volume", 1_073_741_823, ("0.9 GB", "0,9 GB", "0,9 GB", "0,9 ГБ")),
        ("volume", 512, ("512 byte", "512 B", "512 Byte", "512 Б")),
        ("number", 12_345, ("12,345", "12.345", "12.345", "12 345")),
        ("number", 1234, ("1,234", "1234", "1.234", "1 234")),
        ("duration", 5400, ("90 mins", "90 min", "90 Min.", "90 мин")),
        ("rate", 2_000_000, ("2 Mbit/s", "2 Mbit/s", "2 Mbit/s", "2 Мбит/с")),
        ("date", AT_MS, ("5 Mar 2026", "5 mar 2026", "5. März 2026", "5 мар. 2026 г.")),
        ("name", "internet", ("Internet", "Internet", "Internet", "Интернет")),
        ("name", "something else", ("something else",) * 4),
    ],
)
def test_kinds_of_values(kind: str, value: Value, texts: tuple[str, ...]) -> None:
    """What is left is never shown as more than it is."""
    names = {"internet": {"ru": "Интернет", "en": "Internet", "de": "Internet", "es": "Internet"}}
    for language, text in zip(("en", "es", "de", "ru"), texts, strict=True):
        found = shown(kind, value, Context(language, "Europe/Berlin", "EUR", names))
        assert found.replace("\u00a0", " ").replace("\u202f", " ") == text, language


def test_currencies_have_their_own_decimals() -> None:
    assert shown("money", 1_500_900_000, Context("en", "UTC", "JPY", {})) == "JP¥1,500"
    assert shown("money", 1_234_567, Context("en", "UTC", "KWD", {})).replace("\u00a0", "") == "KWD1.234"


def test_a_language_that_is_not_there_falls_back(shipped: Templates) -> None:
    assert shipped.language_for("barred", "de-AT") == "de"
    assert shipped.language_for("barred", "fr") == "en"
    assert Templates.load(SHIPPED / "templates", "ru").language_for("barred", "fr") == "ru"


@given(written=st.text(max_size=60))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_values_are_never_code(shipped: Templates, written: str) -> None:
    """What a value says comes out as it is, but for control characters; it is no template."""
    text = shipped.render(notice("suspended", {"reason": f"{written}{{{{ 7 * 7 }}}}"}), "en", TOLD, "UTC").body
    assert "{{ 7 * 7 }}" in text
    assert "\x1b" not in text


def test_an_account_has_all_that_shipped_texts_need(shipped: Templates) -> None:
    account = Account(b"a", 1, 1, 978, 50_000_000, 0, [], {})
    account.buckets = [
        Bucket(1, Unit.MONEY, -3_200_000, 1_000_000, 100, 0),
        Bucket(2, Unit.MONEY, 200_000, 0, 50, AT_MS + 1),
        Bucket(3, Unit.MONEY, 9_000_000, 0, 50, AT_MS),
        Bucket(4, Unit.OCTETS, 1 << 30, 0, 50, 0),
    ]
    values = account_values(account, AT_MS)
    assert values == {"balance": -3_000_000, "limit": 50_000_000, "currency": "EUR"}
    for name in set(shipped.known) - {"top-up-received"}:
        assert render(shipped, name, "en", values)


# -- mistakes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(SHIPPED / "templates", tmp_path / "templates")
    monkeypatch.chdir(tmp_path)
    return Path("templates")


def refused(copy: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        Templates.load(copy, "en")
    return str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("Subject: x\nfirst\n{{ balnce }}\n", ("templates/de/restored.txt:3: the notice is not told 'balnce'; did you "
         "mean 'balance'?; add it to templates.yaml")),
        ("Subject: x\n\n{% if balance %}\n", "templates/de/restored.txt:3: Unexpected end of template"),
        ("Subject: x\n{{ balance | monney }}\n", "templates/de/restored.txt:2: No filter named 'monney'"),
        ("Subject: x\nfirst\n{{ balance / 2 }}\n", "templates/de/restored.txt:3: it fails: unsupported operand"),
        ("Subject: x\n{{ balance.__class__.__mro__ }}\n", "templates/de/restored.txt:2: it fails: access to attribute"),
        ("Your balance\n\n{{ balance }}\n", "templates/de/restored.txt:1: the first line must be the subject"),
        ("Subject: x\n\n", "templates/de/restored.txt:2: there is no text below the subject"),
        ("Subject: x\n{% if balance == 1 %}x{% endif %}\n", "templates/de/restored.txt: subject or text is empty"),
        ("Subject: {{ balance }}\n{{ 'x' * 5000 }}\n", "templates/de/restored.txt: it fails: its text has 5000"),
        ("Subject: x\n{% include '/etc/passwd' %}\n", "templates/de/restored.txt"),
    ],
)  # fmt: skip
def test_mistakes_in_a_text(copy: Path, content: str, message: str) -> None:
    (copy / "de" / "restored.txt").write_text(content)
    assert refused(copy).startswith(message)


def test_a_value_that_may_be_missing_has_to_be_asked_for(copy: Path) -> None:
    (copy / "ru" / "suspended.txt").write_text("Subject: x\nbecause {{ reason }}\n")
    assert refused(copy) == (
        "templates/ru/suspended.txt: it says 'None' without what may be missing: ask first, as in {% if reason %}"
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("balance: money}}", "balance: mony}}", "'mony' is no kind of value; did you mean 'money'?"),
        ("low-balance: {values", "low_balance: {values", "'low_balance' is no name of a template"),
        ("low-balance: {values", "low-balance: {vals", "unknown key 'vals'"),
        ("[en, es, de, ru]", "[es, de, ru]", "the default language, notices.language, is en, which is not among these"),
        ("[en, es, de, ru]", "[en, es, de, ru, xx]", "'xx' is no language"),
        ("balance: money}}", "at: money}}", "'at' cannot be the name of a value"),
        ("restored: {values", "restored: {only_in: [de], values", "it must be written in the default language"),
        ("restored: {values", "restored: {only_in: [en, it], values", "must be one of en, es, de, ru"),
    ],
)
def test_mistakes_in_the_declarations(copy: Path, old: str, new: str, message: str) -> None:
    """Each with the line it is on."""
    path = copy / "templates.yaml"
    before = path.read_text()
    assert old in before
    path.write_text(before.replace(old, new, 1))
    line = before[: before.index(old)].count("\n") + 1
    found = refused(copy)
    assert found.startswith(f"templates/templates.yaml:{line}: ")
    assert message in found


def test_a_text_that_is_missing(copy: Path) -> None:
    """It is refused, unless it is said that the default language takes its place."""
    (copy / "es" / "restored.txt").unlink()
    assert "there is no templates/es/restored.txt: write it, or name the languages it is written in" in refused(copy)
    path = copy / "templates.yaml"
    path.write_text(path.read_text().replace("restored: {values", "restored: {only_in: [en, de, ru], values"))
    templates = Templates.load(copy, "en")
    assert templates.language_for("restored", "es") == "en"
    assert templates.render(notice("restored"), "es", TOLD, "UTC").language == "en"


def test_a_text_that_nobody_looks_for(copy: Path) -> None:
    (copy / "es" / "restord.txt").write_text("Subject: x\ny\n")
    assert refused(copy) == ("templates/es/restord.txt: templates.yaml names no such notice; did you mean 'restored'?")


def test_no_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"templates\.yaml: cannot be read"):
        Templates.load(tmp_path, "en")


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "needs balance"),
        ({"balance": 1}, "no currency"),
        ({"balance": "3.20", "currency": "EUR"}, "whole number"),
        ({"balance": 1 << 200, "currency": "EUR"}, "too large"),
    ],
)
def test_notices_that_cannot_be_put_into_words(shipped: Templates, values: Mapping[str, Value], reason: str) -> None:
    with pytest.raises(RenderError, match=reason):
        render(shipped, "restored", "en", values)
