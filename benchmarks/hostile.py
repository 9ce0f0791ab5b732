"""CPU time that one page costs, for pages made to cost much: ``python -m benchmarks.hostile``.

Each page is looked at as a crawl does: is there a captcha, where is its image, what would its form
send. Prints a table for RESULTS.md; with names, these pages only.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from scrapy.http import HtmlResponse

from scrapy_acecaptcha.crawl.captcha_page import check_size, image_source, rule_for, shows_captcha
from scrapy_acecaptcha.crawl.pages import page_of
from scrapy_acecaptcha.errors import AceCaptchaError
from scrapy_acecaptcha.page.forms import Form
from scrapy_acecaptcha.rules import CaptchaRule

URL = "http://shop.example/"
IMAGE = "<img id=captcha src=/c.png>"
BOX = "<div id=captcha></div>"
END = "<input name=captcha></form>"
NAMED = CaptchaRule(image="#captcha")
AUTO = CaptchaRule(image="auto")


def _inside(body: str, image: str = IMAGE) -> str:
    return f"<form method=post>{image}{body}{END}"


# name -> page of n units; the number is what makes a page of about 2 MB, or what was seen to hurt
PAGES: dict[str, tuple[Callable[[int], str], int]] = {
    "a style sheet of 20 kB without a brace": (
        lambda n: f"<style>{'a ' * n}</style>" + _inside("", BOX),
        10_000,
    ),
    "style sheet: open comments": (
        lambda n: f"<style>{'/*' * n}</style>" + _inside("", BOX),
        500_000,
    ),
    "style sheet: rules with a picture": (
        lambda n: f"<style>{'p b a#captcha i{x:url(y)}' * n}</style>" + _inside("", BOX),
        40_000,
    ),
    "style sheet: nested braces": (
        lambda n: f"<style>{'a{' * n}url(x){'}' * n}</style>" + _inside("", BOX),
        200_000,
    ),
    "style=x:url( and spaces": (
        lambda n: _inside("", f'<div id=captcha style="x:url({" " * n}"></div>'),
        1_000_000,
    ),
    "100 lazy images beside 50 kB of CSS": (
        lambda n: (
            f"<style>{'.a b{c:url(d)}' * (30 * n)}</style><img class=lazy>" * 1
            + "<img class=lazy>" * n
            + _inside("")
        ),
        100,
    ),
    "inputs with an id each": (
        lambda n: _inside("".join(f"<input id=i{i} name=n{i}>" for i in range(n))),
        4_000,
    ),
    "2,000 inputs, a label each": (
        lambda n: _inside(
            "".join(f"<label for=i{i}>code</label><input id=i{i} name=n{i}>" for i in range(n))
        ),
        1_990,
    ),
    "a field named postpostpost...": (
        lambda n: _inside(f"<input name={'post' * n}>"),
        400_000,
    ),
    "1,990 fields named postpostpost...": (
        lambda n: _inside(f"<input name={'post' * 200}>" * n),
        1_990,
    ),
    "1,990 fields, each with a long name of its own": (
        lambda n: _inside("".join(f"<input name={i}{'verifpost' * 50}>" for i in range(n))),
        1_990,
    ),
    "images in a form": (lambda n: "<form id=f></form>" + "<img form=f>" * n + _inside(""), 8_000),
    "300 pictures with 300 fields": (
        lambda n: _inside("<img src=/a.png><input name=code>" * n),
        300,
    ),
    "an element with 3,000 classes": (
        lambda n: _inside(f"<img class='{' '.join(f'c{i}' for i in range(n))}' src=/x.png>"),
        3_000,
    ),
    "a tag of 250,000 attributes": (
        lambda n: f"<p {' '.join(f'a{i}' for i in range(n))}>" + _inside(""),
        250_000,
    ),
    "tags of 300 attributes": (
        lambda n: _inside("") + f"<p {' '.join(f'a{i}' for i in range(300))}>" * n,
        1_200,
    ),
    "options": (lambda n: _inside(f"<select name=s>{'<option>x' * n}</select>"), 19_000),
    "nested fieldsets with fields": (
        lambda n: _inside("<fieldset><input name=a>" * n),
        1_900,
    ),
    "forms": (lambda n: _inside("") + "<form>" * n, 330_000),
    "form ends": (lambda n: _inside("") + "</form>" * n, 280_000),
    "paragraphs": (lambda n: _inside("") + "<p>" * n, 660_000),
    "nested boxes": (lambda n: _inside("") + "<div>" * n, 400_000),
    "matches of the rule": (lambda n: IMAGE * n + _inside(""), 70_000),
    "a page of 5 MB": (lambda n: _inside("") + "<p>text</p>\n" * n, 420_000),
    "a page of 5 MB without a captcha": (lambda n: "<p>text</p>\n" * n, 420_000),
}


def look_at(response: HtmlResponse, rule: CaptchaRule) -> str:
    """Do with a page what a crawl does; what came of it."""
    if not shows_captcha(response, rule):
        return "no captcha"
    try:
        check_size(response)
        page = page_of(response)
        assert page is not None
        own = rule_for(page, rule) or rule
        form = Form(page.text, own, url=URL, base_url=URL, encoding=page.encoding)
        form.submission("A")
        image_source(page, own.image)
    except AceCaptchaError as error:
        return type(error).__name__
    return "sent"


def make(name: str, n: int | None = None) -> HtmlResponse:
    """The page of that name, of *n* units."""
    build, size = PAGES[name]
    return HtmlResponse(URL, body=build(n or size).encode(), encoding="utf-8")


def main() -> None:
    """Print the table."""
    look_at(HtmlResponse(URL, body=_inside("").encode(), encoding="utf-8"), AUTO)  # warm up
    print("| page | kB | CPU, rule names the image | CPU, `auto` |\n|---|---|---|---|")
    for name in sys.argv[1:] or PAGES:
        cells = []
        for rule in (NAMED, AUTO):
            response = make(name)
            before = time.process_time()
            outcome = look_at(response, rule)
            cells.append(f"{time.process_time() - before:.3f} s ({outcome})")
        print(f"| {name} | {len(response.body) // 1000:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
