"""The figures of `loadtests.scale` as a picture: one panel for each question, a bar for each subject (SVG)."""

from html import escape
from typing import Any, Final

_PANEL: Final = 260
_HEIGHT: Final = 250
_BASE: Final = 190
"""Where bars stand, from the top."""
_TALLEST: Final = 140
_BAR: Final = 46
_TITLES: Final = {"accounts": "by accounts", "peers": "by peers", "rules": "by prefixes and policy rules"}
_FONT: Final = 'font-family="sans-serif" font-size="11"'
_WORKER: Final = "#3b6ea5"
_REDIS: Final = "#d08c3c"


def plot(result: dict[str, Any]) -> str:
    """An SVG of worker and Redis CPU per request, with the ratio to the smallest subject above each bar."""
    axes = result["axes"]
    most = max(row["worker_cpu_us"] + row["redis_cpu_us"] for rows in axes.values() for row in rows)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_PANEL * len(axes)} {_HEIGHT}" {_FONT}>',
        "<title>CPU per Credit-Control-Request</title>",
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, (axis, rows) in enumerate(axes.items()):
        parts += _panel(index * _PANEL, _TITLES[axis], rows, _TALLEST / most)
    legend = f"{result['facts']['hot path']}; {result['facts']['machine']}"
    parts += [
        f'<rect x="12" y="{_HEIGHT - 20}" width="10" height="10" fill="{_WORKER}"/>',
        _text(26, _HEIGHT - 11, "worker", "start"),
        f'<rect x="72" y="{_HEIGHT - 20}" width="10" height="10" fill="{_REDIS}"/>',
        _text(86, _HEIGHT - 11, f"Redis, µs of CPU per request; above: ratio to the first. {legend}", "start"),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _panel(left: int, title: str, rows: list[dict[str, Any]], scale: float) -> list[str]:
    parts = [_text(left + _PANEL // 2, 18, title, "middle", ' font-weight="bold"')]
    step = _PANEL // (len(rows) + 1)
    for index, row in enumerate(rows):
        x = left + step * (index + 1)
        worker, redis = row["worker_cpu_us"] * scale, row["redis_cpu_us"] * scale
        parts += [
            _bar(x, _BASE - worker, worker, _WORKER),
            _bar(x, _BASE - worker - redis, redis, _REDIS),
            _text(x, _BASE - worker - redis - 5, f"{row['ratio']:.2f}", "middle"),
            _text(x, _BASE + 15, f"{row['size']:,}", "middle"),
            _text(x, _BASE - 5, f"{row['worker_cpu_us']:.0f}", "middle", ' fill="white"'),
        ]
    return parts


def _bar(x: int, y: float, height: float, colour: str) -> str:
    return f'<rect x="{x - _BAR // 2}" y="{y:.1f}" width="{_BAR}" height="{height:.1f}" fill="{colour}"/>'


def _text(x: int, y: float, text: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y:.1f}" text-anchor="{anchor}"{more}>{escape(text)}</text>'
