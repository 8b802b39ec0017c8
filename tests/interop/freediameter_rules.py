"""Builds and runs freediameter_rules.c, which is freeDiameter's own parser, dictionaries and grammars."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

SOURCE = Path(__file__).with_suffix(".c")
COMPILER = shutil.which("cc") or shutil.which("gcc")
HEADERS_ARE_INSTALLED = any(
    (Path(directory) / "freeDiameter" / "libfdcore.h").exists() for directory in ("/usr/include", "/usr/local/include")
)

OPEN5GS = ("dict_rfc5777", "dict_mip6i", "dict_nasreq", "dict_nas_mipv6", "dict_dcca", "dict_dcca_3gpp")
"""The dictionaries that Open5GS' sample configuration of the SMF loads."""
PLAIN = ("dict_nasreq", "dict_dcca")
"""Those of a client that knows credit control and nothing of 3GPP."""


class Remark(NamedTuple):
    """What freeDiameter does not mind, but says of one AVP when asked."""

    kind: str
    """"unknown": the AVP is in no dictionary; "flags": its flags are not those of the dictionary."""
    text: str
    """"M" or "-" of an unknown AVP; of flags, those it has and those it should have, in hexadecimal digits."""
    path: str
    """Names of the AVPs from the message inwards, joined by "/"."""

    @property
    def is_unknown_and_mandatory(self) -> bool:
        return self.kind == "unknown" and self.text == "M"


class Verdict(NamedTuple):
    """``refusal`` is empty for a message that is accepted, else "DIAMETER_... path of the AVP: reason"."""

    refusal: str
    remarks: tuple[Remark, ...]


def build(directory: Path) -> Path:
    """The program. Raises CalledProcessError if it does not compile."""
    assert COMPILER is not None
    program = directory / SOURCE.stem
    subprocess.run(
        [COMPILER, "-Wall", "-Wextra", "-Werror", "-o", program, SOURCE, "-lfdcore", "-lfdproto", "-ldl"], check=True
    )
    return program


def verdicts(program: Path, dictionaries: Sequence[str], messages: Sequence[bytes]) -> list[Verdict]:
    """What freeDiameter with these dictionaries makes of each message."""
    result = subprocess.run(
        [program, *(f"{name}.fdx" for name in dictionaries)],
        input="".join(f"{message.hex()}\n" for message in messages),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(messages)
    return [_verdict(line) for line in lines]


def _verdict(line: str) -> Verdict:
    first, *rest = line.split("\t")
    if first == "accepted":
        return Verdict("", tuple(_remark(text) for text in rest))
    word, _, refusal = first.partition(" ")
    assert word == "refused", line
    return Verdict(refusal, ())


def _remark(text: str) -> Remark:
    kind, rest = text.split(" ", 1)
    about, path = rest.rsplit(" ", 1)
    return Remark(kind, about, path)
