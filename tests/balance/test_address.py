"""How a store is reached, as processes hand it to each other: no password travels, and what is wrong is said."""

import json
from pathlib import Path

import pytest

from balance.address import OPEN, Access, AccessError, Address, parse_host_port

SECRET = "correct horse"


def test_an_address_survives_the_way_to_another_process(tmp_path: Path) -> None:
    """As JSON, which whoever lists processes sees."""
    (tmp_path / "password").write_text(f"{SECRET}\n")
    access = Access("occ", tmp_path / "password", None, True, tmp_path / "ca", tmp_path / "cert", tmp_path / "key")
    for address in (
        Address(unix_path=Path("/run/a b/redis.sock")),
        Address(host="::1", port=6380, access=Access(password_env="REDIS")),
        Address(sentinels=(("s1", 26379), ("s2", 26380)), master_name="occ", access=access, wait_replicas=2, wait_ms=5),
        Address(nodes=(("r1", 6379),), access=access, hangs_after_ms=700),
    ):
        job = json.dumps(address.as_job())
        assert Address.from_job(json.loads(job)) == address
        assert SECRET not in job
        assert SECRET not in repr(address)
    assert access.greeting() == ("AUTH", "occ", SECRET)


def test_addresses_are_told_in_words() -> None:
    assert Address(sentinels=(("s1", 1), ("::1", 2)), master_name="occ").url == "occ of the sentinels s1:1, [::1]:2"
    assert Address(nodes=(("r1", 1),)).url == "the cluster of r1:1"
    assert Address(host="h", port=1, access=Access(tls=True)).url == "rediss://h:1"


def test_passwords_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "password"
    file.write_text(f"{SECRET}\r\n")
    monkeypatch.setenv("REDIS_PASSWORD", SECRET)
    assert Access(password_file=file).greeting() == ("AUTH", SECRET)
    assert Access(password_env="REDIS_PASSWORD").greeting() == ("AUTH", SECRET)
    assert OPEN.greeting() is None


@pytest.mark.parametrize("content", [b"", b"\n", b"two\nlines\n", b"\xff\n", b"x" * 5000, None])
def test_what_is_no_password_is_refused_without_being_shown(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AccessError, match=r"of store\.password_file") as refused:
        Access(password_file=file).password()
    assert "lines" not in str(refused.value)
    with pytest.raises(AccessError, match=r"NOWHERE of store\.password_env holds no password"):
        Access(password_env="NOWHERE").password({})


def test_certificates_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    assert OPEN.context() is None
    with pytest.raises(AccessError, match="gone"):
        Access(tls=True, ca_file=tmp_path / "gone").context()
    (tmp_path / "broken").write_text("no PEM")
    with pytest.raises(AccessError, match="broken"):
        Access(tls=True, certificate=tmp_path / "broken", key=tmp_path / "broken").context()


@pytest.mark.parametrize(
    ("text", "place"), [("h", ("h", 7)), ("h:1", ("h", 1)), ("[::1]:2", ("::1", 2)), ("192.0.2.1", ("192.0.2.1", 7))]
)
def test_hosts_and_ports(text: str, place: tuple[str, int]) -> None:
    assert parse_host_port(text, 7) == place


@pytest.mark.parametrize("text", ["", ":1", "h:x", "h:0", "h:65536", "u@h", "h/1", "redis://h:1", "[::1"])
def test_what_is_no_host_and_port(text: str) -> None:
    with pytest.raises(ValueError, match="must be host:port"):
        parse_host_port(text, 7)
