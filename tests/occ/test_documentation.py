"""The documentation as a site: it builds, its links lead somewhere, its commands and settings exist."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from occ.cli import app
from occ.settings import (
    CONFIG_VARIABLE,
    TOKEN_FILE_VARIABLE,
    TOKEN_VARIABLE,
    Settings,
    load,
    option_name,
    variable_name,
)
from occ.yamlmap import leaf_paths

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = [PROJECT / "README.md", *sorted(DOCS.glob("*.md"))]


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("material", reason="needs mkdocs-material")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, timeout=120)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Two of the project's pages, to be spoiled; built as all of them are."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT / "packaging", project / "packaging")
    (project / "docs").mkdir()
    for name in ("live.md", "sy.md"):
        shutil.copy(DOCS / name, project / "docs")
    for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md"):
        (project / name).write_text(f"# {name}\n")
    settings = (PROJECT / "mkdocs.yml").read_text().partition("nav:\n")[0]
    (project / "mkdocs.yml").write_text(f"{settings}nav: [index.md, live.md, sy.md, architecture.md, changelog.md]\n")
    return project


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    done = build(PROJECT, tmp_path / "site")
    assert done.returncode == 0, done.stderr
    connecting = (tmp_path / "site" / "connecting.html").read_text()
    assert "ctf:" in connecting  # README's section on Open5GS
    assert "DiameterPeer" in connecting
    page = (tmp_path / "site" / "catalogue.html").read_text()
    assert 'href="source/config/catalogue.yaml.txt"' in page
    assert (tmp_path / "site" / "source" / "config" / "catalogue.yaml.txt").is_file()


def test_two_pages_alone_build(copy: Path, tmp_path: Path) -> None:
    """So that what ends the build below is the line that is added."""
    done = build(copy, tmp_path / "site")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("[x](../config/gone.yaml)", "docs/live.md links to ../config/gone.yaml, which is not there"),
        ("[x](gone.md)", "docs/live.md links to gone.md, which is not there"),
        ("[x](sy.md#gone)", "sy.md#gone"),
        ("<!-- README: Gone -->", "README.md has no section 'Gone'"),
    ],
)
def test_a_link_to_nowhere_ends_the_build(copy: Path, tmp_path: Path, line: str, told: str) -> None:
    with (copy / "docs" / "live.md").open("a") as page:
        page.write(f"\n{line}\n")
    done = build(copy, tmp_path / "site")
    assert done.returncode != 0
    assert told in done.stderr


def said() -> list[list[str]]:
    """Every command of ``occ`` on the pages, in words."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += re.findall(r"`occ ([^`]+)`", text) + re.findall(r"^\$ occ (.+)$", text, re.MULTILINE)
    return [shlex.split(each, comments=True) for each in found]


def test_every_command_and_option_exists() -> None:
    root = typer.main.get_command(app)
    every = said()
    assert len(every) > 15
    for words in every:
        command, rest = commanded(root, words[2:] if words[0] == "--config" else words)
        assert command is not root, words
        assert getattr(command, "invoke_without_command", True), f"{words} is no whole command"
        known = {option for parameter in command.params for option in parameter.opts}
        known |= {option_name(path) for path in leaf_paths(Settings)}
        assert {word for word in rest if word.startswith("--")} <= known, words


def commanded(root: Any, words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words behind its name."""
    command, rest = root, words
    while rest and hasattr(command, "get_command"):
        found = command.get_command(typer.Context(root), rest[0])
        if found is None:
            break
        command, rest = found, rest[1:]
    return command, rest


def test_options_and_variables_named_alone_exist() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    variables = {variable_name(path) for path in leaf_paths(Settings)} | {
        CONFIG_VARIABLE,
        TOKEN_VARIABLE,
        TOKEN_FILE_VARIABLE,
        "OCC_",
    }
    assert set(re.findall(r"\bOCC_[A-Z_]*", text)) <= variables


def test_the_settings_of_a_gateway_are_settings(tmp_path: Path) -> None:
    (block,) = re.findall(
        r"^```yaml\n(diameter:.*?)^```$", (DOCS / "connecting.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert yaml.safe_load(block)
    (tmp_path / "occ.yaml").write_text(block)
    peers = load(tmp_path / "occ.yaml", environ={}).diameter.peers
    assert peers.mode == "strict"
    assert len(peers.policy.peers) == 1


def test_every_page_is_in_the_menu_or_known_to_come_from_elsewhere() -> None:
    text = (PROJECT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r": (\S+\.md)$", text, re.MULTILINE))
    missing = {path.name for path in DOCS.glob("*.md")} - named
    assert not missing, f"add {', '.join(sorted(missing))} to the nav of mkdocs.yml"
