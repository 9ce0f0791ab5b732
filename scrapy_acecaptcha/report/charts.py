"""Charts for the report, as SVG and HTML, and how it writes times and numbers.

The drawings stretch to any width (``preserveAspectRatio="none"``), so no text is in them: what is
written around them keeps its size on a phone. Colours come from the page's style by class name.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from scrapy_acecaptcha.recognition.journal_file import OUTCOMES

NOTHING = '<p class="muted">Nothing to show yet.</p>'
DASH = "\N{EN DASH}"  # where there is no number

_MAX_TEXT = 1000  # characters of an address or answer
_DAY = 86400  # seconds
_BARS = 60  # at most, in the chart over time
# What a bar of that chart may stand for.
_STEPS = {
    1: "second",
    5: "5 seconds",
    10: "10 seconds",
    30: "30 seconds",
    60: "minute",
    300: "5 minutes",
    600: "10 minutes",
    1800: "half-hour",
    3600: "hour",
    3 * 3600: "3 hours",
    6 * 3600: "6 hours",
    12 * 3600: "12 hours",
    _DAY: "day",
    7 * _DAY: "week",
    30 * _DAY: "30 days",
}
_BINS = 24  # about, in the chart of latencies
_HEIGHT = 100  # of a drawing, in its own units


def moment(time: float) -> str:
    """Write a time given in seconds since 1970: ``2026-01-31 09:30:00``, in UTC."""
    return (
        f"{datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=time):%Y-%m-%d %H:%M:%S}"
    )


def duration(seconds: float | None) -> str:
    """Write a duration given in seconds: ``350 ms``, ``1.21 s``, ``130 s``; a dash for None."""
    if seconds is None:
        return DASH
    if seconds < 0.9995:
        return f"{seconds * 1000:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:,.0f} s"


def percent(share: float | None) -> str:
    """Write a share of 0 to 1: ``87.4 %``; a dash for None."""
    return DASH if share is None else f"{100 * share:.1f} %"


def plural(number: int, noun: str) -> str:
    """Write a number of things: ``1 host``, ``12,000 hosts``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def cut(text: str) -> str:
    """Cut a text of somebody else's that is too long for a page."""
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


def share_bar(outcomes: Counter[str]) -> str:
    """Draw all outcomes as parts of one bar."""
    parts, left = [], 0
    for outcome in OUTCOMES:
        parts.append(_rectangle(outcome, left, 0, outcomes[outcome], 1))
        left += outcomes[outcome]
    return _drawing(left or 1, 1, "".join(parts), hidden=True)


def timeline(times: Sequence[float], kinds: Sequence[int]) -> str:
    """Draw calls over time, stacked by outcome.

    :param times: when each call was sent, in seconds since 1970
    :param kinds: for each call, the index of its outcome in OUTCOMES
    """
    if not times:
        return NOTHING
    first, last = min(times), max(times)
    step = next((step for step in _STEPS if (last - first) / step < _BARS), None)
    name = _STEPS[step] if step else ""
    if step is None:
        months = math.ceil((last - first) / (30 * _DAY * (_BARS - 1)))
        step, name = months * 30 * _DAY, f"{months * 30} days"
    start = math.floor(first / step) * step
    counts = [Counter[str]() for _ in range(int((last - start) // step) + 1)]
    for time, kind in zip(times, kinds, strict=True):
        counts[int((time - start) // step)][OUTCOMES[kind]] += 1
    bars = []
    for place, count in enumerate(counts):
        stack = [(outcome, count[outcome]) for outcome in OUTCOMES if count[outcome]]
        told = ", ".join(f"{number:,} {outcome}" for outcome, number in stack) or "no calls"
        bars.append(_Bar(f"{moment(start + place * step)}: {told}", stack))
    end = start + len(counts) * step
    return _chart(bars, _time_labels(start, end, step), "Calls over time", f"Calls per {name}")


def histogram(seconds: Sequence[float], median: float, slow: float, most: float) -> str:
    """Draw how long calls took.

    :param seconds: the latency of each call
    :param median: their median, which is marked, as is
    :param slow: their 95th percentile
    :param most: latency from which on all calls share the last bar
    """
    width = _round_number(max(most, 0.001) / _BINS)
    counts = [0] * (math.floor(most / width) + 1)
    for latency in seconds:
        counts[min(int(latency / width), len(counts) - 1)] += 1
    bars = []
    for place, number in enumerate(counts):
        low, high = duration(place * width), duration((place + 1) * width)
        span = f"{low} to {high}" if place < len(counts) - 1 else f"{low} and more"
        bars.append(_Bar(f"{span}: {plural(number, 'call')}", [("latency", number)]))
    end = len(counts) * width
    return _chart(
        bars,
        ("0", duration(end / 2), duration(end)),
        "Calls by latency",
        f"Dashed: median {duration(median)}, 95 % within {duration(slow)}",
        marks=[median / width, slow / width],
    )


class _Bar(NamedTuple):
    told: str  # when the pointer is on it
    stack: Sequence[tuple[str, int]]  # class name and height of each part, from the bottom up


def _chart(
    bars: Sequence[_Bar],
    labels: Sequence[str],
    title: str,
    note: str,
    marks: Sequence[float] = (),
) -> str:
    """Put bars between a scale and labels; *marks* are places on the x axis, in bars."""
    highest = max(sum(number for _, number in bar.stack) for bar in bars)
    unit = max(1, _round_number(highest / 4))
    ticks = range(0, (math.ceil(highest / unit) + 1) * int(unit), int(unit))
    scale = _HEIGHT / ticks[-1]
    parts = [
        f'<line class="grid" x2="{len(bars)}" y1="{_n(tick * scale)}" y2="{_n(tick * scale)}"/>'
        for tick in ticks
    ]
    parts += [_stacked(place, bar, scale) for place, bar in enumerate(bars)]
    parts += [f'<line class="mark" x1="{_n(x)}" x2="{_n(x)}" y2="{_HEIGHT}"/>' for x in marks]
    numbers = "".join(f"<span>{tick:,}</span>" for tick in ticks)
    places = "".join(f"<span>{label}</span>" for label in labels)
    return (
        f'<div class="chart"><div class="y" aria-hidden="true">{numbers}</div>'
        f"{_drawing(len(bars), _HEIGHT, ''.join(parts), title)}"
        f'<div class="x" aria-hidden="true">{places}</div><p class="note">{note}</p></div>'
    )


def _stacked(place: int, bar: _Bar, scale: float) -> str:
    parts, top = [], float(_HEIGHT)
    for name, number in bar.stack:
        top -= number * scale
        parts.append(_rectangle(name, place + 0.1, top, 0.8, number * scale))
    hover = _rectangle("hover", place, 0, 1, _HEIGHT)
    return f"<g>{''.join(parts)}{hover}<title>{bar.told}</title></g>"


def _rectangle(name: str, x: float, y: float, width: float, height: float) -> str:
    return (
        f'<rect class="{name}" x="{_n(x)}" y="{_n(y)}" width="{_n(width)}" height="{_n(height)}"/>'
    )


def _drawing(
    width: float, height: float, parts: str, title: str = "", *, hidden: bool = False
) -> str:
    label = 'aria-hidden="true"' if hidden else f'role="img" aria-label="{title}"'
    return (
        f'<svg viewBox="0 0 {_n(width)} {_n(height)}" preserveAspectRatio="none" {label}>'
        f"{parts}</svg>"
    )


def _time_labels(start: float, end: float, step: float) -> list[str]:
    """Write the two ends and the middle, as short as they can be told apart."""
    labels = [moment(time) for time in (start, (start + end) / 2, end)]
    if step >= _DAY:
        return [label[:10] for label in labels]
    cut = 19 if step < 60 else 16
    if labels[0][:10] == labels[2][:10]:
        return [label[11:cut] for label in labels]
    return [label[5:16] for label in labels]


def _round_number(number: float) -> float:
    """Return the next of 1, 2, 5, 10, 20, 50 ... (or 0.1, 0.2 ...) that is not below *number*."""
    power = 10.0 ** math.floor(math.log10(number)) if number > 0 else 1.0
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= number * 0.999999)


def _n(number: float) -> str:
    return f"{number:.6g}"
