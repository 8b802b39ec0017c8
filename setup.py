"""Puts the configuration into the wheel, beside the code; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfiguration(build_py):
    """``config/`` becomes ``occ/config/`` of the wheel, where ``occ.settings`` looks if there is none beside it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            there = Path(self.build_lib) / "occ" / "config"
            shutil.rmtree(there, ignore_errors=True)
            shutil.copytree(Path(__file__).parent / "config", there)


setup(cmdclass={"build_py": BuildWithConfiguration})
