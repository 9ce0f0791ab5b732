"""The report: its figures by hand, and the page in a real browser."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from parsel import Selector

from scrapy_acecaptcha.errors import AceCaptchaError, SettingsError
from scrapy_acecaptcha.recognition.journal import Account, Journal
from scrapy_acecaptcha.recognition.journal_file import OUTCOMES
from scrapy_acecaptcha.report import gallery, report
from scrapy_acecaptcha.report.charts import DASH, NOTHING, duration, histogram, moment, timeline
from scrapy_acecaptcha.report.report import write_report
from tests.browsers import SyncBrowser, on_page

# 1x1 pixel; browsers do not mind what comes after the end of a GIF.
GIF = bytes.fromhex("47494638396101000100800000ffffff00000021f90401000000002c00000000")
GIF += bytes.fromhex("010001000002024401003b")
DRAWING = b'<svg xmlns="http://www.w3.org/2000/svg"><script>window.hacked = 1</script></svg>'
HOST = "records.example.org"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal(tmp_path / "acecaptcha.db") as journal:
        yield journal


def call(
    journal: Journal,
    outcome: Any = "accepted",
    *,
    answer: str | None = "7364",
    code: str = "ok",
    seconds: float = 1.0,
    trace_id: str | None = None,
    **fields: Any,
) -> None:
    """Write one call into the journal."""
    begun: dict[str, Any] = {
        "spider": "court",
        "host": HOST,
        "url": f"https://{HOST}/search",
        "image": GIF,
    }
    call = {**begun, **fields}
    account = Account(1, call.pop("spider"), FileLock(journal.path))
    row = journal.begin(account, **call)
    if outcome == "unknown":
        return
    journal.complete(row, answer=answer, code=code, seconds=seconds, trace_id=trace_id)
    if code == "ok":
        journal.settle(row, outcome)
        journal.latencies().result()  # it is on disk by then


def written(journal: Journal, **options: Any) -> Path:
    path = journal.path.with_suffix(".html")
    write_report(journal.path, path, **options)
    return path


def figures(html: str) -> dict[str, tuple[str, str]]:
    """What the cards on top say."""
    return {
        card.css("h2::text").get(""): (
            card.css("strong::text").get(""),
            card.css("p::text").get(""),
        )
        for card in Selector(html).css(".figure")
    }


class TestFigures:
    def test_totals(self, journal: Journal) -> None:
        for number in range(6):
            call(journal, seconds=number + 1)
        call(journal, "rejected", seconds=20)
        call(journal, "rejected", seconds=20, host="other.example.org")
        call(journal, "unreadable", answer="?")
        call(journal, "unsent")
        call(journal, "error", answer=None, code="timeout", seconds=130)
        call(journal, "error", answer=None, code="used_up", seconds=0.1)
        call(journal, "unknown")
        account = Account(1, "court", FileLock(journal.path))
        for source, outcome in (
            ("journal", "accepted"),
            ("local", "accepted"),
            ("local", "accepted"),
            ("local", "rejected"),
            ("compared", "accepted"),
        ):
            journal.note_free_reading(account, HOST, source, outcome)  # type: ignore[arg-type]
        journal.latencies().result()  # all is on disk by then
        assert write_report(journal.path, journal.path.with_suffix(".html"), price=0.02) == 13
        html = journal.path.with_suffix(".html").read_text()
        assert figures(html) == {
            "Calls": ("13", "for 2 hosts"),
            "Solved": ("9", "answers that a site accepted"),
            "Share accepted": ("75.0 %", "of 8 answers that a site judged"),
            "Calls per solve": ("1.44", "below 1.00 where texts are saved"),
            "Charged calls": ("10", "up to 12 with those that timed out or were cut off"),
            "Saved calls": ("3", "1 by the journal, 2 by the local reader, which had 1 refused"),
            "Median latency": ("3.00 s", "95 % within 20.00 s"),
            "Spent": ("0.20", "at 0.02 for a charged call; 0.06 were saved"),
            "Cost per 1,000 pages": ("22.22", "one for each captcha solved"),
        }
        page = Selector(html)
        assert [" ".join(item.css("::text").getall()) for item in page.css(".legend li")] == [
            "Accepted  6   46.2 %",
            "Rejected  2   15.4 %",
            "Unreadable  1   7.7 %",
            "Unsent  1   7.7 %",
            "Error  2   15.4 %",
            "Unknown  1   7.7 %",
        ]
        assert "API errors: timeout 1, used_up 1" in html
        rows = [" ".join(row.css("th::text, td ::text").getall()) for row in page.css("tbody tr")]
        assert rows == [
            f"{HOST} 12 6 1 1 1 2 1 3 85.7 % 1.33 3.00 s 20.00 s",
            f"other.example.org 1 · 1 · · · · · 0.0 % {DASH} 20.00 s 20.00 s",
        ]

    def test_pages_that_the_crawls_brought_home(self, journal: Journal) -> None:
        call(journal)
        told = figures(written(journal, price=0.5, pages=200).read_text())
        assert told["Cost per 1,000 pages"] == ("2.50", "200 pages")
        told = figures(written(journal, price=0.5, pages=0).read_text())
        assert told["Cost per 1,000 pages"] == (DASH, "0 pages")

    def test_values_that_cannot_be(self, journal: Journal) -> None:
        for _ in range(10):
            call(journal)
        rows: list[tuple[str, object]] = [
            ("time", 1e300),
            ("time", "yesterday"),
            ("time", -1e300),
            ("seconds", 1e300),
            ("seconds", "long"),
            ("outcome", "splendid"),
            ("outcome", b"\xff"),
            ("image", "text"),
            ("answer", 7),
            ("url", b"\xff\xfe"),
        ]
        with sqlite3.connect(journal.path) as db:
            for number, (column, value) in enumerate(rows, 1):
                db.execute(f"UPDATE calls SET {column} = ? WHERE id = ?", (value, number))
            db.execute("UPDATE calls SET host = CAST(x'fffe' AS TEXT), code = 3 WHERE id = 10")
        assert figures(written(journal).read_text())["Calls"][0] == "10"

    def test_nothing_solved(self, journal: Journal) -> None:
        call(journal, "unknown")
        told = figures(written(journal).read_text())
        assert told["Calls per solve"][0] == told["Share accepted"][0] == DASH
        assert told["Median latency"] == (DASH, f"95 % within {DASH}")

    def test_no_calls(self, journal: Journal) -> None:
        html = written(journal).read_text()
        assert "no calls yet" in html
        assert html.count(NOTHING) == 2

    def test_many_hosts(self, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(report, "MAX_HOSTS", 3)
        for number in range(5):
            call(journal, host=f"{number}.example.org")
        call(journal, host="4.example.org")
        page = Selector(written(journal).read_text())
        assert page.css("tbody th::text").getall() == [f"{n}.example.org" for n in (4, 0, 1)]
        assert page.css("tbody td.more::text").get() == "2 more hosts with 2 calls"


class TestCharts:
    @pytest.mark.parametrize(
        ("seconds", "note"),
        [
            (0, "Calls per second"),
            (59, "Calls per second"),
            (60, "Calls per 5 seconds"),
            (3 * 3600, "Calls per 5 minutes"),
            (14 * 3600, "Calls per half-hour"),
            (29 * 86400, "Calls per 12 hours"),
            (400 * 86400, "Calls per week"),
            (56 * 365 * 86400, "Calls per 360 days"),
        ],
    )
    def test_bars_over_time(self, seconds: int, note: str) -> None:
        times = [1_700_000_000.5 - seconds * part / 7 for part in range(8)]
        chart = Selector(timeline(times, [0] * 8))
        assert chart.css(".note::text").get() == note
        assert len(chart.css("g")) <= 61
        told = re.findall(r": (\d+) accepted", " ".join(chart.css("title::text").getall()))
        assert sum(map(int, told)) == 8

    def test_stack(self) -> None:
        chart = Selector(timeline([0.0] * 10, [0] * 7 + [1] * 2 + [5]))
        assert chart.css("title::text").get() == (
            "1970-01-01 00:00:00: 7 accepted, 2 rejected, 1 unknown"
        )
        assert [
            (part.attrib["class"], part.attrib["y"], part.attrib["height"])
            for part in chart.css("rect:not(.hover)")
        ] == [("accepted", "30", "70"), ("rejected", "10", "20"), ("unknown", "0", "10")]

    def test_latencies(self) -> None:
        chart = Selector(histogram([0.5] * 98 + [1.0, 60.0], 0.5, 0.5, 1.0))
        told = chart.css("title::text").getall()
        assert told[10] == "500 ms to 550 ms: 98 calls"
        assert told[-1] == "1.00 s and more: 2 calls"

    def test_latency_of_nothing(self) -> None:
        assert "0 ms and more: 3 calls" in histogram([0.0] * 3, 0.0, 0.0, 0.0)

    def test_numbers(self) -> None:
        assert [duration(seconds) for seconds in (None, 0, 0.00012, 0.35, 0.9996, 9.999, 130)] == [
            DASH,
            "0 ms",
            "0.12 ms",
            "350 ms",
            "1.00 s",
            "10.00 s",
            "130 s",
        ]
        assert moment(1_700_000_000) == "2023-11-14 22:13:20"


TO_STDOUT = """
import sys
from scrapy_acecaptcha.report.report import write_report

write_report(sys.argv[1], "/dev/stdout")
"""


class TestFiles:
    def test_no_journal(self, tmp_path: Path) -> None:
        output = tmp_path / "report.html"
        missing, empty, foreign = tmp_path / "missing", tmp_path / "empty", tmp_path / "foreign"
        empty.touch()
        foreign.write_text("id,title\n" * 1000)
        for path, told in (
            (missing, "no such file"),
            (empty, "it is empty"),
            (foreign, "not a da"),
        ):
            with pytest.raises(SettingsError, match=told):
                write_report(path, output)
        assert not output.exists()
        assert not missing.exists()

    def test_journal_is_not_replaced_or_changed(self, journal: Journal) -> None:
        call(journal)
        journal.close()
        before = journal.path.read_bytes()
        with pytest.raises(SettingsError, match="would replace the journal"):
            write_report(journal.path, journal.path)
        written(journal)
        assert journal.path.read_bytes() == before

    def test_output_that_cannot_be_written(self, journal: Journal, tmp_path: Path) -> None:
        for output in (tmp_path, tmp_path / "no folder" / "report.html"):
            with pytest.raises(AceCaptchaError, match="cannot be written to"):
                write_report(journal.path, output)

    def test_output_is_replaced_only_when_complete(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = written(journal)
        before = path.read_text()
        call(journal)
        monkeypatch.setattr(gallery, "_row", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            written(journal)
        assert path.read_text() == before
        assert not [file for file in path.parent.iterdir() if file.name.startswith(".")]

    def test_pipe(self, journal: Journal) -> None:
        process = subprocess.run(
            [sys.executable, "-c", TO_STDOUT, str(journal.path)], capture_output=True, check=True
        )
        assert process.stdout.endswith(b"</html>\n")

    def test_file_name_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / os.fsdecode(b"a\xff.db")
        Journal(path).close()
        write_report(path, tmp_path / "report.html")
        assert "<bdi>a?.db</bdi>" in (tmp_path / "report.html").read_text()

    def test_loads_nothing(self, journal: Journal) -> None:
        call(journal)
        html = written(journal).read_text()
        assert not re.search(r"(?:src|href|action)\s*=\s*[\"']?(?:https?:)?//", html)
        assert "@import" not in html
        assert "default-src 'none'" in html
        assert "unsafe" not in html


Look = Callable[..., Any]


@pytest.fixture
def look(journal: Journal, sync_browser: SyncBrowser) -> Look:
    """Open the journal's report, do something on the page, and see that it kept to itself."""

    def look(body: Callable[[Any], Any], gallery: int = 10_000, **context: Any) -> Any:
        path = written(journal, gallery=gallery)
        troubles: list[str] = []

        def on(page: Any) -> Any:
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("console", lambda message: troubles.append(message.text))
            page.on("dialog", lambda dialog: troubles.append(dialog.message))
            page.on("request", lambda request: requests.append(request.url))
            page.set_default_timeout(30_000)  # ten thousand calls, on a machine with other work
            page.goto(path.as_uri())
            return body(page)

        requests: list[str] = []
        result = on_page(sync_browser, on, **context)
        assert not troubles
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
        return result

    return look


def cards(page: Any) -> list[str]:
    """The answers that the gallery shows."""
    return page.locator("#cards .answer").all_inner_texts()


class TestPage:
    def test_filter(self, journal: Journal, look: Look) -> None:
        call(journal, answer="first", url="https://records.example.org/case/17")
        call(journal, "rejected", answer="second", spider="register", seconds=9)
        call(journal, "rejected", answer="third", host="b.example.org", trace_id="trace-33")
        call(journal, "error", answer=None, code="timeout")
        call(journal, "unreadable", answer="")

        def body(page: Any) -> None:
            assert cards(page) == ["(nothing)", "timeout", "third", "second", "first"]
            assert page.locator("#found").inner_text() == "5 of 5 calls"
            page.get_by_role("button", name="rejected 2", exact=True).click()
            assert cards(page) == ["third", "second"]
            page.select_option("#host", "b.example.org")
            assert cards(page) == ["third"]
            assert page.locator("#found").inner_text() == "1 of 5 calls"
            page.get_by_role("button", name="All 1").click()
            page.select_option("#host", "")
            for text, found in {
                "CASE/17": ["first"],
                "register": ["second"],
                "trace-33": ["third"],
                "timeout": ["timeout"],
                "nothing like it": [],
            }.items():
                page.fill("#search", text)
                assert cards(page) == found
            page.fill("#search", "")
            page.select_option("#order", "slowest")
            assert cards(page)[0] == "second"
            page.select_option("#order", "oldest")
            assert cards(page)[0] == "first"
            page.locator("#hosts").get_by_role("button", name="b.example.org").click()
            assert cards(page) == ["third"]

        look(body)

    def test_details(self, journal: Journal, look: Look) -> None:
        call(journal, "rejected", answer="73<b>64", trace_id="abc", seconds=1.234)

        def body(page: Any) -> None:
            page.locator(".card").click()
            dialog = page.get_by_role("dialog")
            assert dialog.locator("h2").inner_text() == "73<b>64"
            facts = dialog.locator("dd").all_inner_texts()
            assert facts[:4] == ["rejected", f"https://{HOST}/search", HOST, "court"]
            assert facts[5:] == ["1.23 s", "ok", "abc"]
            assert dialog.locator("a").get_attribute("rel") == "noopener noreferrer"
            page.keyboard.press("Escape")
            assert not dialog.is_visible()

        look(body)

    def test_images(self, journal: Journal, look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gallery, "_MAX_IMAGE", 200)
        call(journal, answer="drawing", image=DRAWING)
        call(journal, answer="text", image=b"<html>")
        call(journal, answer="large", image=GIF + bytes(200))
        for number in range(200):  # several blocks of images
            call(journal, answer=str(number), image=GIF + b"%d" % number)
        call(journal, answer="again", image=GIF + b"7")

        def body(page: Any) -> None:
            shown = "img => img.complete && img.naturalWidth === 1"
            for text in ("again", "199", "64", "63", "0"):
                page.fill("#search", text)
                image = page.locator(".card", has=page.get_by_text(text, exact=True)).locator("img")
                page.wait_for_function(f"img => ({shown})(img)", arg=image.element_handle())
            for text, why in {
                "drawing": "not a raster image",
                "text": "not a raster image",
                "large": "too large to show",
            }.items():
                page.fill("#search", text)
                assert page.locator(".picture").first.inner_text() == why
                assert not page.locator("#cards img").count()

        look(body)
        html = journal.path.with_suffix(".html").read_text()
        assert html.count("image/gif;base64,") == 200
        assert html.count('class="images"') == 4
        assert "svg+xml" not in html

    def test_images_beyond_the_limit(
        self, journal: Journal, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gallery, "_MAX_IMAGES", 3 * len(GIF) + 5)
        for number in range(5):
            call(journal, image=GIF + b"%d" % number)
        assert written(journal).read_text().count("image/gif;base64,") == 3

    def test_newest_calls_of_many(self, journal: Journal, look: Look) -> None:
        for number in range(30):
            call(journal, answer=str(number))

        def body(page: Any) -> None:
            assert cards(page) == [str(number) for number in range(29, 9, -1)]
            assert page.locator("#found").inner_text() == "20 of 20 calls, the newest of 30"

        look(body, gallery=20)

    def test_no_calls(self, look: Look) -> None:
        look(lambda page: page.get_by_text("0 of 0 calls").wait_for())


# What a page or the API may send, to be shown as it stands.
HOSTILE = [
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    '"><img src=x onerror="window.hacked = 1">',
    "<img src=//evil.example/x.png>",
    "'); window.hacked = 1; ('",
    "${window.hacked = 1}$name",
    "line\u2028separator\u2029paragraph",
    "\u202eright to left",
    "]]></title></style><svg onload=window.hacked=1>",
    "&lt;b&gt;&amp;",
    "\x00\x1b[31m\x7f",
    "A" * 5000,
]


class TestHostile:
    @pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
    def test_shown_as_text(self, journal: Journal, look: Look, text: str) -> None:
        call(journal, answer=text, host=text, spider=text, url=text, trace_id=text)
        call(journal, "error", answer=None, code=text, url=f"javascript:{text}")
        short = text if len(text) <= 1000 else text[:1000] + "…"

        def body(page: Any) -> None:
            code, answer = page.locator(".card .answer").evaluate_all(
                "all => all.map(e => e.textContent)"
            )
            assert answer == code == short
            for number in range(2):
                page.locator(".card").nth(number).click()
                facts = page.locator("dialog dd").evaluate_all("all => all.map(e => e.textContent)")
                assert short in facts
                assert not page.locator("dialog a").count()
                page.keyboard.press("Escape")
            (host,) = {short} & set(
                page.locator("#host option").evaluate_all("all => all.map(e => e.value)")
            )
            page.select_option("#host", value=host)
            assert len(cards(page)) == 1
            assert page.evaluate("window.hacked") is None

        look(body)

    def test_file_name(self, tmp_path: Path, sync_browser: SyncBrowser) -> None:
        name = "<img src=x onerror=window.hacked=1>$style.db"
        with Journal(tmp_path / name) as journal:
            call(journal)
        write_report(tmp_path / name, tmp_path / "report.html")

        def body(page: Any) -> None:
            page.goto((tmp_path / "report.html").as_uri())
            assert page.locator("header bdi").inner_text() == name
            assert page.title() == f"Captcha report: {name}"
            assert page.evaluate("window.hacked") is None

        on_page(sync_browser, body)

    def test_policy_stops_a_script_that_got_in_anyway(
        self, journal: Journal, sync_browser: SyncBrowser
    ) -> None:
        path = written(journal)
        smuggled = (
            "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'></main>"
        )
        path.write_text(path.read_text().replace("</main>", smuggled))

        def body(page: Any) -> None:
            page.goto(path.as_uri())
            assert page.evaluate("window.hacked") is None

        on_page(sync_browser, body)


# Copies of the first three calls by turns, with answers, hosts and images of their own.
COPIES = """
WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers LIMIT :copies)
INSERT INTO calls (
    account, time, spider, host, rule, url, sha256, answer, seconds, code, outcome, image
)
SELECT account, time, spider, (n % 500) || '.example.org', rule, url, printf('%064x', n),
    printf('%d', n), seconds, code, outcome, CAST(image || printf('%d', n) AS BLOB)
FROM numbers JOIN calls ON id = n % 3 + 1 ORDER BY n
"""


class TestScale:
    def test_ten_thousand_calls(self, journal: Journal, look: Look) -> None:
        for outcome in OUTCOMES[:3]:
            call(journal, outcome)
        with sqlite3.connect(journal.path) as db:
            db.execute(COPIES, {"copies": 10_000})
            db.execute("DELETE FROM calls WHERE id <= 3")

        def body(page: Any) -> None:
            nodes = "document.querySelectorAll('*').length"
            assert page.locator("#found").inner_text() == "10,000 of 10,000 calls"
            assert page.evaluate(nodes) < 4500  # of which the table of 100 hosts has the most
            assert page.locator(".card").count() == 48
            page.fill("#search", "999")
            assert page.locator("#found").inner_text().startswith("19 of 10,000")
            page.fill("#search", "")
            before = page.evaluate(nodes)
            for _ in range(5):
                page.get_by_role("button", name="Next").click()
            assert page.locator("#page").inner_text() == "Page 6 of 209"
            assert cards(page)[0] == str(9999 - 5 * 48)
            assert page.evaluate(nodes) == before

        look(body)

    @pytest.mark.parametrize("width", [320, 390, 768, 1280])
    def test_no_sideways_scrolling(self, journal: Journal, look: Look, width: int) -> None:
        long = "a-very-long-name-" * 12 + ".example.org"
        for outcome in OUTCOMES:
            call(journal, outcome, answer="W" * 300, host=long, url=f"https://{long}/" + "x" * 900)
            call(journal, outcome, host="b.example.org", seconds=1234.5)

        def body(page: Any) -> None:
            overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(overflow) == 0
            page.locator(".card").last.click()
            assert page.evaluate(overflow) == 0
            box = page.get_by_role("dialog").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width

        look(body, viewport={"width": width, "height": 800})

    def test_contrast(self, journal: Journal, look: Look) -> None:
        for outcome in OUTCOMES:
            call(journal, outcome)
        for scheme in ("light", "dark"):
            ratios = look(lambda page: page.evaluate(CONTRASTS), color_scheme=scheme)
            assert min(ratios.values()) >= 4.5, (scheme, ratios)


# WCAG's contrast of what is written against what it is written on.
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const luminance = (color) => {
    canvas.fillStyle = color;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b] = [...canvas.getImageData(0, 0, 1, 1).data].map((value) => {
      const part = value / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
  const ratios = {};
  const fronts = ["text", "muted", "accepted", "rejected", "unreadable", "unsent", "error"];
  fronts.push("unknown");
  for (const front of fronts) {
    for (const ground of ["surface", "ground"]) {
      const both = [luminance(color("--" + front)), luminance(color("--" + ground))];
      const [dark, light] = both.sort((a, b) => a - b);
      ratios[front + " on " + ground] = (light + 0.05) / (dark + 0.05);
    }
  }
  return ratios;
}"""
