"""Pages that may have a captcha, and their outlines, for those who label them by eye."""

# ruff: noqa: RUF001 - letters of other alphabets are meant here

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from parsel import Selector

from scrapy_acecaptcha.page.controls import is_text

MOST_LINES = 45
_SILENT = ("script", "style", "title", "option")
_SHOWN = (
    *("id", "name", "src", "alt", "title", "type", "value", "placeholder", "onclick", "maxlength"),
    "style",
)

# Names and texts that pages with a captcha have, and many others: all of these are looked at.
_SUSPECT = re.compile(
    r"captcha|kaptcha|kapcha|seccode|sec_?image|verif|valid(?:at\w*)?_?(?:code|img|image)|vcode|yzm|"
    r"yanzheng|check_?(?:code|num|img)|rand(?:om)?_?(?:code|img|image|num|pic)|auth_?(?:code|num|img)|"
    r"img_?code|code_?im|image_?code|pic_?code|turing|secur\w*_?(?:code|im)|securimage|antispam|"
    r"spam_?(?:code|im)|confirm_?(?:code|im)|\bcode\.(?:php|jsp|asp)|image\.jsp|jcap|robot|"
    r"验证码|驗證碼|校验码|附加码|看不清|换一张|код с|капч|символы|security image",
    re.IGNORECASE,
)
_SUSPECT_TEXT = re.compile(
    r"captcha|验证码|驗證碼|校验码|капч|код с картинк|security (?:code|image)|verification code|"
    r"(?:characters|letters|code|text) (?:above|below|shown|in the (?:image|picture))",
    re.IGNORECASE,
)
_SCRIPT = re.compile(
    r"src=[\"']?[^\"'> ]*(?:\.(?:php|jsp|aspx?|ashx|do|action|cgi|pl|cfm)\b|servlet|/[\w-]+[\"'?])",
    re.IGNORECASE,
)


def is_suspect(page: Selector) -> bool:
    """Whether a page may have a captcha: by names, by text, by a picture that a script makes."""
    pictures = page.css("img, input[type=image], image").getall()
    inputs = [element for element in page.css("input").getall() if "hidden" not in element]
    if any(_SUSPECT.search(element) for element in [*pictures, *inputs]):
        return True
    text = page.xpath("//body//text()[not(parent::script or parent::style)]").getall()
    if _SUSPECT_TEXT.search(" ".join(text)):
        return True
    return any(_SCRIPT.search(re.sub(r"logo|avatar", "", element)) for element in pictures)


class _Line(NamedTuple):
    text: str
    is_suspect: bool


def outline(page: Selector, width: int = 4) -> list[str]:
    """The pictures (I1, I2...), fields (F1...) and buttons (B1...) around what is suspect."""
    lines = list(_lines(page))
    near = {
        place
        for i, line in enumerate(lines)
        if line.is_suspect
        for place in range(i - width, i + width + 1)
    }
    return [line.text for i, line in enumerate(lines) if i in near][:MOST_LINES]


def _lines(page: Selector) -> Iterator[_Line]:
    numbers = {"I": 0, "F": 0, "B": 0}
    for element in page.root.iter():
        if not isinstance(element.tag, str):
            continue
        kind = kind_of_element(element)
        text = " ".join((element.text or "").split())
        if kind:
            numbers[kind] += 1
            said = " ".join(f"{k}={v[:60]}" for k, v in element.items() if k in _SHOWN)
            source = f'src="{element.get("src")}"'
            is_odd = _SUSPECT.search(said) or (kind == "I" and _SCRIPT.search(source))
            caption = text[:30] if kind == "B" else ""
            yield _Line(f"{kind}{numbers[kind]} {said} {caption}", bool(is_odd))
        elif element.tag == "form":
            yield _Line("-- form", is_suspect=False)
        elif text and element.tag not in _SILENT:
            yield _text(text)
        tail = " ".join((element.tail or "").split())
        if tail and element.tag != "option":
            yield _text(tail)


def _text(text: str) -> _Line:
    return _Line(
        f"   {text[:50]!r}", bool(_SUSPECT.search(text[:50]) or _SUSPECT_TEXT.search(text))
    )


def kind_of_element(element: Any) -> str:
    """I for pictures, F for fields, B for buttons; empty for all else."""
    tag, kind = element.tag, (element.get("type") or "").lower()
    if tag in ("img", "image", "svg", "canvas"):
        return "I"
    if tag == "input" and is_text(element):
        return "F"
    if tag == "button" or (tag == "input" and kind in ("submit", "button", "image")):
        return "B"
    return ""
