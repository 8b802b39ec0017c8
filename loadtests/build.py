"""What exactly was measured: versions, commit, and whether the hot path was compiled."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import balance.ledger
import balance.records
import occ.charging

_HOT: Final = (balance.ledger, balance.records, occ.charging)
_VERSIONS: Final = ("uvloop", "hiredis", "msgpack")
_ROOT: Final = Path(__file__).resolve().parent.parent


def is_compiled() -> bool:
    """Whether the hot path is made of C extensions here, for the server as well: it runs the same modules."""
    return all(not (module.__file__ or "").endswith(".py") for module in _HOT)


def describe_hot_path() -> str:
    return "compiled with mypyc (make setup COMPILED=1)" if is_compiled() else "plain Python"


def describe_versions() -> str:
    """The commit, and the libraries on whose speed the figures depend."""
    return ", ".join([f"commit {commit()}", *(f"{name} {_version(name)}" for name in _VERSIONS)])


def commit() -> str:
    """Of the checkout, with a plus sign where files differ from it; "unknown" outside one."""
    try:
        name = _git("rev-parse", "--short=12", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--untracked-files=no", "--", "*.py", "*.lua") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(_ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "?"
