"""Where the image of an element comes from."""

from __future__ import annotations

import re
from typing import Any

from parsel import Selector

from scrapy_acecaptcha.errors import CaptchaImageError

_CSS_URL = re.compile(r"url\(\s*(?:\"([^\"]*)\"|'([^']*)'|([^)]*?))\s*\)", re.IGNORECASE)
_CSS_RULE = re.compile(r"([^{}]+)\{([^{}]*\burl\([^{}]*)\}", re.IGNORECASE)
# Behind src those from which scripts load images that come into view.
_IMG_SOURCES = ("src", "data-src", "data-original", "data-lazy-src", "data-lazy")
_SOURCE_ATTRIBUTES = {
    "img": _IMG_SOURCES,
    "image": _IMG_SOURCES,  # which browsers take for <img>
    "input": ("src",),
    "object": ("data",),
    "embed": ("src",),
}


def image_address(match: Selector, page: Selector) -> str | None:
    """Where the image of the matched element comes from; None for an inline <svg>.

    :raises CaptchaImageError: the element shows no image
    """
    element = match.root
    if not hasattr(element, "tag"):
        raise CaptchaImageError("The selector matches text; it must match an element")
    for name in _SOURCE_ATTRIBUTES.get(element.tag, ()):
        if (element.get(name) or "").strip():
            return str(element.get(name))
    if element.tag == "img" and element.get("srcset"):
        return str(element.get("srcset").split()[0])
    if element.tag == "svg":
        return None
    if shown := background(element, page):
        return shown
    inside = match.xpath(".//img | .//svg | .//input[@type='image']")
    if len(inside) == 1:  # the selector names the box around the image
        return image_address(inside[0], page)
    raise CaptchaImageError(f"The <{element.tag}> that the selector matches shows no image")


def background(element: Any, page: Selector) -> str | None:
    """The CSS background of *element*: its own style, else the page's <style> blocks."""
    own = _CSS_URL.search(element.get("style") or "")
    if own:
        return next(group for group in own.groups() if group is not None)
    found = None
    for sheet in page.xpath("//style/text()").getall():
        for selectors, declarations in _CSS_RULE.findall(
            re.sub(r"/\*.*?\*/", "", sheet, flags=re.S)
        ):
            try:
                matches = page.css(selectors)
            except Exception:  # noqa: S112 - @media, :hover and whatever else pages write
                continue
            if any(match.root is element for match in matches):
                found = _CSS_URL.search(declarations)
    return next(group for group in found.groups() if group is not None) if found else None
