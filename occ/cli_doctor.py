"""The command ``occ doctor``: checks a set-up, and says what to mend."""

from typing import Final

import typer

from occ.cli_shell import REFUSED, AsJson, console, print_json, quiet_logs, settings_of, table
from occ.doctor import Finding, Grade, examine

_STYLES: Final = {Grade.GOOD: "", Grade.DOUBTFUL: "yellow", Grade.BAD: "bold red"}


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check the set-up: Python, rules, Redis, disk, ports, clock, peers, limits; exit code 1 if something is bad.

    Nothing is changed, and the server may run or not.
    """
    settings = settings_of(context)
    quiet_logs()
    findings = list(examine(settings))
    if as_json:
        print_json(
            [
                {"check": each.what, "grade": each.grade.value, "found": each.text, "mend": each.mend or None}
                for each in findings
            ]
        )
    else:
        _show(findings)
    if any(each.grade is Grade.BAD for each in findings):
        raise typer.Exit(REFUSED)


def _show(findings: list[Finding]) -> None:
    out = console()
    lines = table("", "", "")
    for each in findings:
        lines.add_row(each.grade.value, each.what, each.text, style=_STYLES[each.grade])
        if each.mend:
            lines.add_row("", "", f"-> {each.mend}")
    out.print(lines)
    bad = sum(each.grade is Grade.BAD for each in findings)
    doubtful = sum(each.grade is Grade.DOUBTFUL for each in findings)
    if bad or doubtful:
        out.print(f"{bad} to mend, {doubtful} doubtful.")
    else:
        out.print("All is well.")
