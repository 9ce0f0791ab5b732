"""The journal as a page to look at: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import TextIO

from scrapy_acecaptcha.errors import AceCaptchaError, SettingsError
from scrapy_acecaptcha.recognition.journal_file import OUTCOMES, Snapshot
from scrapy_acecaptcha.report.charts import (
    DASH,
    NOTHING,
    cut,
    duration,
    histogram,
    moment,
    percent,
    plural,
    share_bar,
    timeline,
)
from scrapy_acecaptcha.report.figures import Figures, Tally
from scrapy_acecaptcha.report.gallery import write_gallery

GALLERY = 10_000  # calls
MAX_HOSTS = 100  # rows of the table
MAX_CODES = 8  # of API errors


def write_report(
    journal_path: str | os.PathLike[str],
    output_path: str | os.PathLike[str],
    *,
    gallery: int = GALLERY,
    price: float | None = None,
    pages: int | None = None,
) -> int:
    """Write a report on a journal, as one HTML file that loads nothing from anywhere.

    The figures cover the whole journal, the gallery its newest calls. Crawls may go on writing to
    the journal meanwhile.

    :param journal_path: the file that ACECAPTCHA_JOURNAL names
    :param output_path: the HTML file; one that is there already is replaced
    :param gallery: most calls to show with their image
    :param price: of one charged call, in any currency: the report tells what was spent and saved
    :param pages: that the crawls brought home; None: as many as captchas were solved
    :returns: number of calls in the journal
    :raises SettingsError: there is no journal at *journal_path*, or *output_path* is the journal
    :raises AceCaptchaError: the journal is damaged, or the report cannot be written
    """
    with Snapshot(journal_path) as journal:
        if os.path.exists(output_path) and os.path.samefile(journal_path, output_path):
            raise SettingsError(f"The report would replace the journal {journal_path} itself")
        figures = Figures(journal.rows(images=False), journal.free_readings())
        script = _asset("report.js")
        head, tail = _page(Path(journal_path).name, figures, script, _cards(figures, price, pages))
        try:
            with _replacing(Path(output_path)) as file:
                file.write(head)
                write_gallery(file, journal.rows(gallery), figures.calls, script)
                file.write(tail)
        except OSError as error:
            raise AceCaptchaError(
                f"The report cannot be written to {output_path}: {error.strerror or error}"
            ) from error
    return figures.calls


def _page(name: str, figures: Figures, script: str, cards: str) -> tuple[str, str]:
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
        "figures": cards,
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


def _cards(figures: Figures, price: float | None, pages: int | None) -> str:
    """The figures that tell what a crawl costs."""
    charged, perhaps = figures.charged, figures.perhaps_charged
    median, slow = figures.latencies(0.5, 0.95)
    cards = [
        ("Calls", f"{figures.calls:,}", f"for {plural(len(figures.hosts), 'host')}"),
        ("Solved", f"{figures.solved:,}", "answers that a site accepted"),
        (
            "Share accepted",
            percent(figures.share_accepted),
            f"of {plural(figures.judged, 'answer')} that a site judged",
        ),
        ("Calls per solve", _ratio(figures.calls_per_solved), "below 1.00 where texts are saved"),
        (
            "Charged calls",
            f"{charged:,}",
            f"up to {charged + perhaps:,} with those that timed out or were cut off"
            if perhaps
            else "which brought a text",
        ),
        ("Saved calls", f"{figures.saved:,}", _savings(figures)),
        ("Median latency", duration(median), f"95 % within {duration(slow)}"),
    ]
    if price is not None:
        cards += _costs(figures, price, pages)
    return "\n".join(
        f'<div class="figure"><h2>{title}</h2><strong>{value}</strong><p>{note}</p></div>'
        for title, value, note in cards
    )


def _savings(figures: Figures) -> str:
    refused = f", which had {figures.refused_local:,} refused" if figures.refused_local else ""
    return (
        f"{figures.by_journal:,} by the journal, {figures.by_local_reader:,} by the local reader"
        f"{refused}"
    )


def _costs(figures: Figures, price: float, pages: int | None) -> list[tuple[str, str, str]]:
    number = figures.solved if pages is None else pages
    spent, saved = figures.charged * price, figures.saved * price
    per_page = f"{1000 * spent / number:,.2f}" if number else DASH
    counted = "one for each captcha solved" if pages is None else plural(pages, "page")
    return [
        ("Spent", f"{spent:,.2f}", f"at {price:g} for a charged call; {saved:,.2f} were saved"),
        ("Cost per 1,000 pages", per_page, counted),
    ]


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
    codes = ", ".join(f"{escape(cut(code))} {number:,}" for code, number in ranked[:MAX_CODES])
    return f'<p class="muted">API errors: {codes}</p>'


def _latency(figures: Figures) -> str:
    median, slow, most = figures.latencies(0.5, 0.95, 0.99)
    if median is None or slow is None or most is None:
        return NOTHING
    return histogram(figures.seconds, median, slow, most)


def _host_rows(hosts: dict[str, Tally]) -> str:
    ranked = sorted(hosts.items(), key=lambda item: (-item[1].calls - item[1].saved, item[0]))
    rows = [_host_row(host, tally) for host, tally in ranked[:MAX_HOSTS]]
    if len(ranked) > MAX_HOSTS:
        rest = sum(tally.calls for _, tally in ranked[MAX_HOSTS:])
        more = f"{plural(len(ranked) - MAX_HOSTS, 'more host')} with {plural(rest, 'call')}"
        rows.append(f'<tr><td class="more" colspan="13">{more}</td></tr>')
    return "\n".join(rows) or '<tr><td class="more" colspan="13">No calls yet</td></tr>'


def _host_row(host: str, tally: Tally) -> str:
    numbers = (tally.calls, *(tally.outcomes[outcome] for outcome in OUTCOMES), tally.saved)
    cells = "".join(f"<td>{number:,}</td>" if number else "<td>·</td>" for number in numbers)
    judged = Counter({kind: tally.outcomes[kind] for kind in ("accepted", "rejected")})
    share = f'<span class="percent">{percent(tally.share_accepted)}</span>'
    cells += f"<td>{share_bar(judged) if tally.judged else ''}{share}</td>"
    cells += f"<td>{_ratio(tally.calls_per_solved)}</td>"
    cells += "".join(f"<td>{duration(latency)}</td>" for latency in tally.latencies(0.5, 0.95))
    name = escape(cut(host))
    return f'<tr><th scope="row" title="{name}">{name}</th>{cells}</tr>'


def _ratio(number: float | None) -> str:
    return DASH if number is None else f"{number:.2f}"


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
