"""Writes the dashboards into ``config/grafana/dashboards``: ``make dashboards``."""

import sys
from pathlib import Path
from typing import Final

from tests.monitoring.dashboards import DASHBOARDS
from tests.monitoring.grafana import text

PLACE: Final = Path(__file__).resolve().parents[2] / "config" / "grafana" / "dashboards"


def main() -> None:
    PLACE.mkdir(parents=True, exist_ok=True)
    for dashboard in DASHBOARDS:
        path = PLACE / f"{dashboard.uid}.json"
        path.write_text(text(dashboard), encoding="utf-8")
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
