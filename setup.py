"""Puts the configuration into the wheel, beside the code; and the choice to compile.

With OCC_COMPILE=1 the modules of the hot path become C extensions (mypyc). The sources are the same typed Python either
way. A compiled module lies beside its source and is taken in its place, so it is to be made anew whenever the source
changes, or removed: ``make setup COMPILED=1`` and ``make setup`` see to that. Needs a C compiler and mypy; everything
else is in pyproject.toml.
"""

import os
import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any, Final

from setuptools import setup
from setuptools.command.build_py import build_py

# What a request is read, decided, written down and answered by. Nodes and the state machine of peers are not among
# them: what they do is done once a connection. No function
# within a function there may be made for a request: once compiled, each leaves a cycle of references behind.
HOT: Final = [
    "balance/accounts.py",
    "balance/answers.py",
    "balance/commits.py",
    "balance/fees.py",
    "balance/keys.py",
    "balance/lane.py",
    "balance/ledger.py",
    "balance/look_ups.py",
    "balance/model.py",
    "balance/packing.py",
    "balance/periods.py",
    "balance/plans.py",
    "balance/records.py",
    "balance/requests.py",
    "balance/resp.py",
    "balance/snapshots.py",
    "balance/store_statistics.py",
    "occ/admission.py",
    "occ/advice.py",
    "occ/away_settling.py",
    "occ/cdr.py",
    "occ/charging.py",
    "occ/clock.py",
    "occ/codes.py",
    "occ/events.py",
    "occ/gy.py",
    "occ/indications.py",
    "occ/lifecycle.py",
    "occ/policing.py",
    "occ/policy/watching.py",
    "occ/pricing.py",
    "occ/profiles.py",
    "occ/rating/across_switch.py",
    "occ/rating/call_price.py",
    "occ/rating/caps.py",
    "occ/rating/catalogue.py",
    "occ/rating/discount.py",
    "occ/rating/offered.py",
    "occ/rating/plans.py",
    "occ/rating/price.py",
    "occ/rating/service.py",
    "occ/rating/steps.py",
    "occ/rating/tariff.py",
    "occ/rating/tiers.py",
    "occ/request_statistics.py",
    "occ/rules.py",
    "occ/service_units.py",
    "occ/services.py",
    "policies/levels.py",
    "policies/policy.py",
    "policies/rules.py",
    "protocols/credit_control/answer.py",
    "protocols/credit_control/answer_model.py",
    "protocols/credit_control/encoding.py",
    "protocols/credit_control/members.py",
    "protocols/credit_control/model.py",
    "protocols/credit_control/request.py",
    "protocols/credit_control/wire.py",
    "protocols/diameter/assembly.py",
    "protocols/diameter/connection.py",
    "protocols/diameter/link.py",
    "protocols/diameter/shape.py",
    "protocols/diameter/watchdog.py",
]


def compiled() -> list[Any]:
    """The extension modules of ``HOT``; ends with a sentence if they cannot be made here."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None and shutil.which("cc") is None:
        sys.exit(f"OCC_COMPILE=1 needs a C compiler, and {compiler} is not here: install it, or leave OCC_COMPILE out.")
    try:
        from mypyc.build import mypycify  # noqa: PLC0415 - only who compiles has to have it
    except ImportError:
        sys.exit("OCC_COMPILE=1 needs mypy: install it (pip install mypy), or leave OCC_COMPILE out.")
    return list(mypycify(HOT, opt_level="2", debug_level="0"))


class BuildWithConfiguration(build_py):
    """``config/`` becomes ``occ/config/`` of the wheel, where ``occ.settings`` looks if there is none beside it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            there = Path(self.build_lib) / "occ" / "config"
            shutil.rmtree(there, ignore_errors=True)
            shutil.copytree(Path(__file__).parent / "config", there)


setup(
    cmdclass={"build_py": BuildWithConfiguration},
    ext_modules=compiled() if os.environ.get("OCC_COMPILE") == "1" else [],
)
