"""The journal as a page to look at: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from tempfile import TemporaryFile
from typing import TextIO

from scrapy_acecaptcha.errors import AceCaptchaError, SettingsError
from scrapy_acecaptcha.page.images import image_format
from scrapy_acecaptcha.recognition.journal_file import OUTCOMES, Call, Snapshot
from scrapy_acecaptcha.report.charts import (
    DASH,
    NOTHING,
    duration,
    histogram,
    moment,
    percent,
    plural,
    share_bar,
    timeline,
)

GALLERY = 10_000  # calls
MAX_HOSTS = 100  # rows of the table
MAX_CODES = 8  # of API errors

_MAX_IMAGE = 256_000  # bytes of one image that is put on the page
_MAX_IMAGES = 96_000_000  # bytes of all of them
_IMAGES_PER_BLOCK = 64
_RASTER = frozenset({"png", "jpeg", "gif", "bmp", "webp"})
# Why an image is not on the page. An SVG is a document, which is never put there.
_NO_IMAGE = ("not a raster image", "too large to show", "left out: too many images")
_MAX_TEXT = 1000  # characters of an address or answer

# Calls that may have been charged though they brought no text, None: cut off by a crash.
_PERHAPS_CHARGED = frozenset({"timeout", "connection_error", "bad_response", None})


def write_report(
    journal_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    *,
    gallery: int = GALLERY,
) -> int:
    """Write a report on a journal, as one HTML file that loads nothing from anywhere.

    The figures cover the whole journal, the gallery its newest calls. Crawls may go on writing to
    the journal meanwhile.

    :param journal_path: the file that ACECAPTCHA_JOURNAL names
    :param output_path: the HTML file; one that is there already is replaced
    :param gallery: most calls to show with their image
    :returns: number of calls in the journal
    :raises SettingsError: there is no journal at *journal_path*, or *output_path* is the journal
    :raises AceCaptchaError: the journal is damaged, or the report cannot be written
    """
    with Snapshot(journal_path) as journal:
        if os.path.exists(output_path) and os.path.samefile(journal_path, output_path):
            raise SettingsError(f"The report would replace the journal {journal_path} itself")
        figures = _Figures(journal.rows(images=False))
        script = _asset("report.js")
        head, tail = _page(Path(journal_path).name, figures, script)
        try:
            with _replacing(Path(output_path)) as file:
                file.write(head)
                _write_gallery(file, journal.rows(gallery), figures.calls, script)
                file.write(tail)
        except OSError as error:
            raise AceCaptchaError(
                f"The report cannot be written to {output_path}: {error.strerror or error}"
            ) from error
    return figures.calls


# ---------------------------------------------------------------------------------------- figures


class _Tally:
    """What is counted, for a host or for everything."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.seconds = array("d")  # of the calls that brought a text

    def add(self, call: Call) -> None:
        self.outcomes[call.outcome] += 1
        if call.code == "ok" and call.seconds is not None:
            self.seconds.append(call.seconds)

    @property
    def calls(self) -> int:
        return sum(self.outcomes.values())

    @property
    def judged(self) -> int:
        """Answers that the site accepted or rejected."""
        return self.outcomes["accepted"] + self.outcomes["rejected"]

    @property
    def share_accepted(self) -> float | None:
        return self.outcomes["accepted"] / self.judged if self.judged else None

    @property
    def calls_per_solved(self) -> float | None:
        solved = self.outcomes["accepted"]
        return self.calls / solved if solved else None

    def latencies(self, *shares: float) -> list[float | None]:
        """The latencies, in seconds, that these shares of the calls did not exceed."""
        ordered = sorted(self.seconds)
        if not ordered:
            return [None] * len(shares)
        return [ordered[max(0, math.ceil(share * len(ordered)) - 1)] for share in shares]


class _Figures(_Tally):
    """Everything that the upper half of the page tells."""

    def __init__(self, calls: Iterable[Call]) -> None:
        super().__init__()
        self.hosts: dict[str, _Tally] = {}
        self.errors: Counter[str] = Counter()
        self.charged = self.perhaps_charged = 0
        self.times = array("d")
        self.kinds = array("b")  # index of the outcome of each call in OUTCOMES
        for call in calls:
            self.add(call)

    def add(self, call: Call) -> None:
        super().add(call)
        self.hosts.setdefault(call.host, _Tally()).add(call)
        self.times.append(call.time)
        self.kinds.append(OUTCOMES.index(call.outcome))
        if call.outcome == "error":
            self.errors[call.code or "cut off"] += 1
        self.charged += call.code == "ok"
        self.perhaps_charged += call.code in _PERHAPS_CHARGED


# ------------------------------------------------------------------------------------ upper half


def _page(name: str, figures: _Figures, script: str) -> tuple[str, str]:
    """Return what comes before and what comes after the gallery's data."""
    style = _asset("report.css")
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        f"style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    )
    values = {
        "policy": policy,
        "name": escape(name),
        "period": _period(figures.times),
        "figures": _cards(figures),
        "outcomes": share_bar(figures.outcomes) + _legend(figures.outcomes),
        "errors": _errors(figures.errors),
        "timeline": timeline(figures.times, figures.kinds),
        "latency": _latency(figures),
        "hosts": _host_rows(figures.hosts),
        "style": style,
    }
    head, tail = _asset("report.html").split("$gallery\n")
    return Template(head).substitute(values), Template(tail).substitute(values)


def _asset(name: str) -> str:
    return (resources.files("scrapy_acecaptcha.report") / "assets" / name).read_text(
        encoding="utf-8"
    )


def _digest(text: str) -> str:
    """Name an inline style or script in the page's policy, which lets no other one run."""
    return "sha256-" + base64.b64encode(sha256(text.encode()).digest()).decode("ascii")


def _period(times: Sequence[float]) -> str:
    if not times:
        return "no calls yet"
    first, last = moment(min(times))[:16], moment(max(times))[:16]
    return f"{first} to {last} UTC" if first != last else f"{first} UTC"


def _cards(figures: _Figures) -> str:
    """The figures that tell what a crawl costs."""
    charged, perhaps = figures.charged, figures.perhaps_charged
    median, slow = figures.latencies(0.5, 0.95)
    cards = (
        ("Calls", f"{figures.calls:,}", f"for {plural(len(figures.hosts), 'host')}"),
        ("Solved", f"{figures.outcomes['accepted']:,}", "answers that a site accepted"),
        (
            "Share accepted",
            percent(figures.share_accepted),
            f"of {plural(figures.judged, 'answer')} that a site judged",
        ),
        (
            "Calls per solve",
            _ratio(figures.calls_per_solved),
            "at best 1.00",
        ),
        (
            "Charged calls",
            f"{charged:,}",
            f"up to {charged + perhaps:,} with those that timed out or were cut off"
            if perhaps
            else "which brought a text",
        ),
        ("Median latency", duration(median), f"95 % within {duration(slow)}"),
    )
    return "\n".join(
        f'<div class="figure"><h2>{title}</h2><strong>{value}</strong><p>{note}</p></div>'
        for title, value, note in cards
    )


def _legend(outcomes: Counter[str]) -> str:
    calls = sum(outcomes.values())
    return '<ul class="legend">{}</ul>'.format(
        "".join(
            f'<li class="{outcome}">{outcome.capitalize()} <b>{outcomes[outcome]:,}</b> '
            f"<span>{percent(outcomes[outcome] / calls if calls else None)}</span></li>"
            for outcome in OUTCOMES
        )
    )


def _errors(errors: Counter[str]) -> str:
    if not errors:
        return ""
    ranked = sorted(errors.items(), key=lambda item: (-item[1], item[0]))
    codes = ", ".join(f"{escape(_cut(code))} {number:,}" for code, number in ranked[:MAX_CODES])
    return f'<p class="muted">API errors: {codes}</p>'


def _latency(figures: _Figures) -> str:
    median, slow, most = figures.latencies(0.5, 0.95, 0.99)
    if median is None or slow is None or most is None:
        return NOTHING
    return histogram(figures.seconds, median, slow, most)


def _host_rows(hosts: dict[str, _Tally]) -> str:
    ranked = sorted(hosts.items(), key=lambda item: (-item[1].calls, item[0]))
    rows = [_host_row(host, tally) for host, tally in ranked[:MAX_HOSTS]]
    if len(ranked) > MAX_HOSTS:
        rest = sum(tally.calls for _, tally in ranked[MAX_HOSTS:])
        more = f"{plural(len(ranked) - MAX_HOSTS, 'more host')} with {plural(rest, 'call')}"
        rows.append(f'<tr><td class="more" colspan="12">{more}</td></tr>')
    return "\n".join(rows) or '<tr><td class="more" colspan="12">No calls yet</td></tr>'


def _host_row(host: str, tally: _Tally) -> str:
    numbers = (tally.calls, *(tally.outcomes[outcome] for outcome in OUTCOMES))
    cells = "".join(f"<td>{number:,}</td>" if number else "<td>·</td>" for number in numbers)
    judged = Counter({kind: tally.outcomes[kind] for kind in ("accepted", "rejected")})
    share = f'<span class="percent">{percent(tally.share_accepted)}</span>'
    cells += f"<td>{share_bar(judged) if tally.judged else ''}{share}</td>"
    cells += f"<td>{_ratio(tally.calls_per_solved)}</td>"
    cells += "".join(f"<td>{duration(latency)}</td>" for latency in tally.latencies(0.5, 0.95))
    name = escape(_cut(host))
    return f'<tr><th scope="row" title="{name}">{name}</th>{cells}</tr>'


def _ratio(number: float | None) -> str:
    return DASH if number is None else f"{number:.2f}"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"


# --------------------------------------------------------------------------------------- gallery


def _write_gallery(file: TextIO, calls: Iterable[Call], total: int, script: str) -> None:
    """Write the calls, the script that shows them, and the images.

    The images come last, as they are by far the most: the page works before all of them are there.
    """
    hosts, spiders = _Numbers(), _Numbers()
    with TemporaryFile("w+", encoding="ascii") as store:
        images = _Images(store)
        rows = [_row(call, hosts, spiders, images.add(call)) for call in calls]
        images.close()
        data = {
            "calls": rows,
            "hosts": list(hosts),
            "spiders": list(spiders),
            "outcomes": OUTCOMES,
            "total": total,
            "images_per_block": _IMAGES_PER_BLOCK,
            "no_image": _NO_IMAGE,
        }
        file.write(f'<script type="application/json" id="data">{_script_json(data)}</script>\n')
        file.write(f"<script>{script}</script>\n")
        store.seek(0)
        shutil.copyfileobj(store, file)


def _row(call: Call, hosts: _Numbers, spiders: _Numbers, image: int) -> tuple[object, ...]:
    """What the script has to know of a call, in the order in which it takes it apart."""
    return (
        round(call.time, 3),
        OUTCOMES.index(call.outcome),
        hosts[_cut(call.host)],
        spiders[_cut(call.spider)],
        _cut(call.url),
        call.answer and _cut(call.answer),
        call.seconds and round(call.seconds, 4),
        call.code and _cut(call.code),
        call.trace_id and _cut(call.trace_id),
        image,
    )


def _script_json(data: object) -> str:
    """JSON that cannot end the <script> around it; ASCII only, so U+2028 is escaped as well."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


class _Numbers(dict[str, int]):
    """Gives each text the next number."""

    def __missing__(self, text: str) -> int:
        self[text] = len(self)
        return self[text]


class _Images:
    """Writes images as text that a browser leaves alone until a page of the gallery needs it."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._places: dict[str, int] = {}
        self._bytes = 0

    def add(self, call: Call) -> int:
        """Return the image's place, or -1, -2 ... for the reason in _NO_IMAGE why it has none."""
        kind = image_format(call.image)
        if kind not in _RASTER:
            return -1
        if len(call.image) > _MAX_IMAGE:
            return -2
        place = self._places.get(call.sha256)
        if place is None:
            if self._bytes + len(call.image) > _MAX_IMAGES:
                return -3
            self._bytes += len(call.image)
            place = self._places[call.sha256] = len(self._places)
            self._write(place, f"image/{kind};base64,{base64.b64encode(call.image).decode()}")
        return place

    def _write(self, place: int, line: str) -> None:
        if place % _IMAGES_PER_BLOCK:
            self._file.write(f"\n{line}")
            return
        if place:
            self.close()
        self._file.write(f'<script type="text/plain" class="images">{line}')

    def close(self) -> None:
        """End the last block."""
        if self._places:
            self._file.write("</script>\n")


@contextmanager
def _replacing(path: Path) -> Iterator[TextIO]:
    """Open a file for writing that takes the place of *path* when it is complete."""
    if path.exists() and not path.is_file():  # a pipe such as /dev/stdout
        with _opened(path) as file:
            yield file
        return
    path = path.resolve()  # through a link to its target
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _opened(draft) as file:
            yield file
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _opened(path: Path) -> TextIO:
    # "replace", as a journal's file name may be anything.
    return path.open("w", encoding="utf-8", errors="replace", newline="\n")
