"""Commands take tokens where the settings say so: who has none, a wrong one or the wrong role, does nothing."""

import os
import signal
from pathlib import Path

import pytest

from balance.embedded import Address
from balance.tokens import Role
from occ.cli import app
from occ.cli_roles import _ROLES, role_of
from occ.workers_file import Replacements, RunningWorkers, WorkersFile
from tests.live_server import LiveServer
from tests.occ.test_cli_misuse import commands
from tests.shell import Shell

ROLES = ("viewer", "care", "operator", "admin")
NEEDS = {
    "viewer": ("account", "show", "acc-1"),
    "care": ("account", "top-up", "acc-1", "1.00"),
    "operator": ("voucher", "create", "5.00"),
    "admin": ("api", "token", "list"),
}


@pytest.fixture
def shell(clean_redis: Address, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    shell = Shell(tmp_path, clean_redis)
    shell.text("account", "create", "acc-1", "--balance", "10.00")
    shell.config.write_text(
        f"{shell.config.read_text()}cli:\n  tokens: required\nvouchers:\n  pepper_file: {tmp_path / 'pepper'}\n"
    )
    for name in ("OCC_TOKEN", "OCC_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    return shell


@pytest.fixture
def tokens(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A token of each role."""
    made = {"admin": str(shell.json("api", "token", "create", "first", "--role", "admin")["token"])}
    monkeypatch.setenv("OCC_TOKEN", made["admin"])
    for role in ROLES[:3]:
        made[role] = str(shell.json("api", "token", "create", role, "--role", role)["token"])
    monkeypatch.delenv("OCC_TOKEN")
    return made


def test_without_a_token_only_the_first_is_made(shell: Shell) -> None:
    for arguments in NEEDS.values():
        assert "set OCC_TOKEN, or OCC_TOKEN_FILE" in shell.refused(1, *arguments)
    shell.text("api", "token", "create", "careful", "--role", "care")  # nobody has the role admin yet
    shell.text("api", "token", "create", "first", "--role", "admin")
    assert "the role admin" in shell.refused(1, "api", "token", "create", "second", "--role", "admin")


def test_settings_of_the_user_do_not_do_away_with_tokens(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server has been started by settings that ask for them; a command's own are whoever's runs it."""
    url = shell.address.url
    monkeypatch.setenv("OCC_CLI_TOKENS", "optional")
    for asked, code in (("required", 1), ("optional", 0)):
        with LiveServer(tmp_path / asked, {"store.mode": "external", "store.url": url, "cli.tokens": asked}):
            result = shell.run("account", "top-up", "acc-1", "1.00")
        assert result.exit_code == code, result.output
        assert ("set OCC_TOKEN, or OCC_TOKEN_FILE" in result.stderr) == (asked == "required")


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_do_what_those_before_it_may(
    shell: Shell, tokens: dict[str, str], role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCC_TOKEN", tokens[role])
    for needed, arguments in NEEDS.items():
        if ROLES.index(needed) <= ROLES.index(role):
            shell.text(*arguments)
        else:
            assert shell.refused(1, *arguments) == f"this takes the role {needed}, and the token has {role}"


def test_what_reads_files_takes_a_token_as_well(
    shell: Shell, tokens: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cdr").mkdir()
    directory = ("--directory", str(tmp_path / "cdr"))
    for needed, arguments in (
        ("viewer", ("cdr", "list", *directory)),
        ("viewer", ("why", "s1", *directory)),
        ("operator", ("cdr", "export", "--parquet", str(tmp_path / "all.parquet"), *directory)),
        ("operator", ("ledger", "closed", "acc-1")),
    ):
        for role in (None, *ROLES):
            if role is None:
                monkeypatch.delenv("OCC_TOKEN", raising=False)
            else:
                monkeypatch.setenv("OCC_TOKEN", tokens[role])
            said = shell.run(*arguments).stderr
            may = role is not None and ROLES.index(role) >= ROLES.index(needed)
            assert (f"the role {needed}" in said) != may, (role, arguments, said)
    shell.config.write_text(shell.config.read_text().replace(shell.address.url, "redis://127.0.0.1:1"))
    assert "tokens are in the store" in shell.refused(1, "cdr", "list", *directory)
    shell.config.write_text(shell.config.read_text().replace("tokens: required", "tokens: optional"))
    shell.text("cdr", "list", *directory)  # on any machine that has the files


def test_a_restart_takes_a_token(
    shell: Shell, tokens: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: asked.append(number))
    file = WorkersFile(tmp_path / "data")
    file.claim()
    try:
        file.write(RunningWorkers(os.getpid(), (), Replacements()))
        monkeypatch.setenv("OCC_STORE_DATA_DIR", str(tmp_path / "data"))
        for role in (None, "viewer", "care", "operator"):
            assert asked == []
            if role is not None:
                monkeypatch.setenv("OCC_TOKEN", tokens[role])
            result = shell.run("restart", "--wait", "0")
            assert (result.exit_code == 0) == (role == "operator"), result.output
        assert asked == [signal.SIGUSR1]
    finally:
        file.release()
        signal.signal(signal.SIGUSR1, before)


def test_a_backup_says_who_may_restore_it(
    shell: Shell, tokens: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OCC_TOKEN", tokens["operator"])
    shell.text("store", "backup", str(tmp_path / "backup"))
    new = tmp_path / "new.yaml"
    new.write_text(f"store: {{data_dir: {tmp_path / 'new'}, partitions: 4}}\ncli: {{tokens: required}}\n")
    shell.config = new
    for role, said in ((None, "set OCC_TOKEN"), ("care", "this takes the role operator")):
        if role is None:
            monkeypatch.delenv("OCC_TOKEN")
        else:
            monkeypatch.setenv("OCC_TOKEN", tokens[role])
        assert said in shell.refused(1, "store", "restore", str(tmp_path / "backup"))
        assert not list((tmp_path / "new").iterdir())
    monkeypatch.setenv("OCC_TOKEN", tokens["operator"])
    shell.text("store", "restore", str(tmp_path / "backup"))
    assert (tmp_path / "new" / "redis").is_dir()


def test_a_token_comes_from_a_file_as_well(
    shell: Shell, tokens: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(tokens["care"] + "\n")
    monkeypatch.setenv("OCC_TOKEN_FILE", str(tmp_path / "token"))
    shell.text(*NEEDS["care"])
    monkeypatch.setenv("OCC_TOKEN", tokens["admin"])
    (act, *_) = [each for each in shell.json("audit", "list") if each["what"] == "occ account top-up"]
    assert "(care)" in act["who"]
    assert act["role"] == "care"


def test_wrong_tokens_are_made_slow(shell: Shell, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    said = ""
    for number in range(6):
        monkeypatch.setenv("OCC_TOKEN", f"occ_{number:012x}_{'a' * 43}")
        result = shell.run("account", "show", "acc-1")
        assert (result.exit_code, result.stdout) == (1, "")
        said = result.stderr
    assert "too many wrong tokens; try again in" in said
    monkeypatch.setenv("OCC_TOKEN", tokens["viewer"])
    shell.text("account", "show", "acc-1")  # a good one never waits


def test_every_command_has_the_role_it_should() -> None:
    import typer

    paths = {" ".join(path) for path, _ in commands(typer.main.get_command(app))}
    assert all(any(path == name or path.startswith(f"{name} ") for path in paths) for name in _ROLES), "of no command"
    assert role_of("subscriber contact show") == Role.VIEWER
    assert role_of("account adjust") == Role.CARE
    assert role_of("api token list") == Role.ADMIN
