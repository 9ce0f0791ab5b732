"""Where the image of an element comes from."""

from __future__ import annotations

from parsel import Selector

from scrapy_acecaptcha.errors import CaptchaImageError
from scrapy_acecaptcha.page.css import background

__all__ = ["background", "image_address"]

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
    if element.tag == "img" and (element.get("srcset") or "").strip():
        return str(element.get("srcset").split(None, 1)[0])
    if element.tag == "svg":
        return None
    if shown := background(element, page):
        return shown
    inside = match.xpath(".//img | .//svg | .//input[@type='image']")
    if len(inside) == 1:  # the selector names the box around the image
        return image_address(inside[0], page)
    raise CaptchaImageError(f"The <{element.tag}> that the selector matches shows no image")
