"""What is delivered: sdist, wheel, container and compose files, units of systemd. No container engine is needed."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from occ.cli import app
from occ.settings import Settings, load, variable_name
from occ.yamlmap import leaf_paths

PROJECT = Path(__file__).parents[2]
CONTAINER = PROJECT / "packaging" / "container"
VERSION = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
UNITS = sorted((PROJECT / "config" / "systemd").glob("*.service"))
VARIABLES = {variable_name(path) for path in leaf_paths(Settings)} | {"OCC_CONFIG"}


def run(*command: str, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# -- the wheel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, which is built from a copy: a build leaves files beside its source."""
    base = tmp_path_factory.mktemp("wheel")
    source = base / "source"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "build", "data", "dist", "corpus", "*.so", "*.egg-info")
    shutil.copytree(PROJECT, source, ignore=left_out)
    build = "from setuptools import build_meta; build_meta.build_sdist('..')"
    run(sys.executable, "-c", build, cwd=source)
    (sdist,) = base.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(base), str(sdist), cwd=base)
    (made,) = base.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def occ(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program as pipx installs it: in an environment of its own. What it depends on is this environment's."""
    there = tmp_path_factory.mktemp("pipx") / "occ"
    venv.create(there, symlinks=True)
    python = there / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", str(python))
    run(*pip, "install", "--no-deps", "--no-index", str(wheel), cwd=there)
    packages = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=there).strip()
    (Path(packages) / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return there / "bin" / "occ"


def test_the_wheel_has_every_file_that_is_no_code(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for pattern in ("balance/**/*.lua", "protocols/**/*.toml"):
        assert {str(path.relative_to(PROJECT)) for path in PROJECT.glob(pattern)} <= names
    config = {f"occ/{path.relative_to(PROJECT)}" for path in (PROJECT / "config").rglob("*") if path.is_file()}
    assert config
    assert config <= names
    assert not any(name.startswith("tests/") for name in names)


def imported() -> set[str]:
    """The packages that our own import anywhere, by their first names."""
    found = set()
    for package in ("balance", "loadtests", "occ", "policies", "protocols", "simulators"):
        for path in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    found.add((node.module or "").partition(".")[0])
    return found


def test_everything_that_is_imported_is_a_dependency() -> None:
    """So that an installation of the wheel has it; but for what is looked for and done without."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    promised = {re.split(r"[<>=;\[ ]", each)[0] for each in project["dependencies"]}
    brought_by = importlib.metadata.packages_distributions()
    others = {name for name in imported() - sys.stdlib_module_names if name in brought_by}
    needed = {re.sub("[-_.]+", "-", brought_by[name][0]).lower() for name in others} - {"occ"}
    assert {"fastapi", "msgpack", "pyyaml"} <= needed
    # The extra "parquet"; what load tests of the project's own make histograms with; and what FastAPI, an application
    # of Starlette with pydantic's models, brings.
    assert needed - promised <= {"hdrhistogram", "pyarrow", "pydantic", "starlette"}


@pytest.fixture(scope="module")
def server(occ: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """What a server of the wheel announces, and the environment to find it in."""
    home = tmp_path_factory.mktemp("home")
    environment = {"HOME": str(home), "XDG_STATE_HOME": str(home / "state"), "PYTHONPATH": ""}
    command = [str(occ), "serve", "--json", "--diameter-port", "0", "--metrics-port", "0"]
    process = subprocess.Popen(
        command, cwd=home, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert line, process.communicate(timeout=10)[1]
        yield json.loads(line), environment
    finally:
        process.terminate()
        process.communicate(timeout=30)


def test_the_wheel_alone_serves_and_simulates(
    server: tuple[dict[str, Any], dict[str, str]], occ: Path, tmp_path: Path
) -> None:
    """In an empty directory, by nothing but the program."""
    told, environment = server
    python = str(occ.with_name("python"))
    where = run(python, "-c", "import occ; print(occ.__file__)", cwd=tmp_path, **environment)
    assert where.startswith(str(occ.parents[1]))
    assert run(str(occ), "--version", cwd=tmp_path, **environment) == f"occ {VERSION}\n"
    assert told["data_dir"] == f"{environment['XDG_STATE_HOME']}/occ"  # not among the packages
    port = str(told["diameter"]["port"])
    gateway = (str(occ), "simulate", "gateway", "--sessions", "20", "--port", port, "--json")
    summary = json.loads(run(*gateway, cwd=tmp_path, **environment))
    verified = json.loads(run(str(occ), "ledger", "verify", "--json", cwd=tmp_path, **environment))
    assert verified["consistent"] is True
    assert verified["totals"][0]["debited"] == summary["debited_micro"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_configuration_of_one_s_own(occ: Path, tmp_path: Path) -> None:
    run(str(occ), "init", "mine", cwd=tmp_path, PYTHONPATH="")
    assert load(tmp_path / "mine" / "config" / "occ.yaml", environ={}).store.data_dir == tmp_path / "mine" / "data"
    again = CliRunner().invoke(app, ["init", str(tmp_path / "mine")])
    assert again.exit_code == 1
    assert again.stderr.endswith("is there already; name another directory, or remove it first\n")


# -- containers ------------------------------------------------------------------------------------------------------


def hadolint() -> str | None:
    return shutil.which("hadolint") or shutil.which("hadolint", path=Path(sys.executable).parent)


@pytest.mark.skipif(hadolint() is None, reason="needs hadolint")
def test_the_linter_finds_nothing_in_the_container_file() -> None:
    assert run(hadolint() or "", str(CONTAINER / "Containerfile"), cwd=PROJECT) == ""


def test_the_container_file_copies_and_sets_what_there_is() -> None:
    text = (CONTAINER / "Containerfile").read_text().replace("\\\n", " ")
    assert set(re.findall(r"\bOCC_[A-Z_]+", text)) <= VARIABLES
    for file in re.findall(r"-r (\S+)", text):
        assert (PROJECT / file).is_file()
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["10001"]
    ignored = (PROJECT / ".dockerignore").read_text().split()
    assert not {"config", "occ", "requirements.lock", "pyproject.toml", "setup.py"} & set(ignored)


def compose() -> Any:
    return yaml.safe_load((CONTAINER / "compose.yaml").read_text())


def test_the_compose_file_is_of_one_piece() -> None:
    document = compose()
    services, volumes = document["services"], document["volumes"]
    assert set(services) == {"occ", "redis", "prometheus", "grafana"}
    used = set()
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        image = service["image"]
        assert "build" in service or (":" in image and not image.endswith(":latest")), name
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            if source.startswith("."):
                assert source.startswith("../../config/") or (CONTAINER / source).exists(), mount
            else:
                used.add(source)
    assert used == set(volumes)
    build = services["occ"]["build"]
    assert (CONTAINER / build["context"] / build["dockerfile"]).resolve() == CONTAINER / "Containerfile"


@pytest.mark.skipif(not (PROJECT / "config" / "grafana").is_dir(), reason="this version has no dashboards")
def test_dashboards_and_rules_that_are_mounted_exist() -> None:
    for name in ("prometheus", "grafana"):
        for mount in compose()["services"][name]["volumes"]:
            source = mount.split(":")[0]
            assert not source.startswith(".") or (CONTAINER / source).exists(), mount


def test_the_server_of_the_compose_file_loses_nothing() -> None:
    services = compose()["services"]
    assert set(services["occ"]["environment"]) <= VARIABLES
    assert services["occ"]["environment"]["OCC_STORE_URL"] == "redis://redis:6379"
    command = " ".join(services["redis"]["command"])
    for setting in ("--appendonly yes", "--appendfsync always", "--maxmemory-policy noeviction"):
        assert setting in command
    scraped = yaml.safe_load((CONTAINER / "prometheus.yml").read_text())
    assert scraped["scrape_configs"][0]["static_configs"][0]["targets"] == ["occ:9464"]
    for name in ("prometheus", "grafana"):  # nobody but this machine reaches them
        assert all(port.startswith("127.0.0.1:") for port in services[name]["ports"])


# -- systemd ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_unit_sets_variables_that_there_are(unit: Path) -> None:
    assert set(re.findall(r"\bOCC_[A-Z_]+", unit.read_text())) <= VARIABLES
