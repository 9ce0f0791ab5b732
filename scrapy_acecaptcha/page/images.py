"""What counts as an image: data: URIs, sniffing, size limits."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from scrapy_acecaptcha.errors import CaptchaImageError
from scrapy_acecaptcha.page.svg import draw_svg

DEFAULT_MAX_BYTES = 1_000_000

_SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "gif": re.compile(rb"GIF8[79]a"),
    "webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
    # "BM" alone may be the beginning of a text; behind it are sizes, the last one the header's.
    "bmp": re.compile(rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0", re.DOTALL),
    "svg": re.compile(
        rb"(?:\xef\xbb\xbf)?\s*(?:(?:<\?xml|<!--|<!DOCTYPE\s+svg).{,4096}?)?<(?:\w+:)?svg[\s>]",
        re.DOTALL | re.IGNORECASE,
    ),
}

RASTER = frozenset(_SIGNATURES) - {"svg"}


def image_format(data: bytes) -> str | None:
    """Tell an image by its first bytes: png, jpeg, gif, bmp, webp, svg; None for anything else."""
    return next((name for name, start in _SIGNATURES.items() if start.match(data)), None)


def readable_image(data: bytes, max_bytes: int = DEFAULT_MAX_BYTES) -> bytes:
    """Return *data* as an image that the API is documented for, or refuse it.

    :param data: what was found where the captcha's image should be
    :param max_bytes: largest image to accept, in bytes
    :raises CaptchaImageError: empty, too large, or not an image
    """
    if not data:
        raise CaptchaImageError("The captcha image is empty")
    if len(data) > max_bytes:
        raise CaptchaImageError(
            f"The captcha image has {len(data):,} bytes, more than the {max_bytes:,} that "
            "ACECAPTCHA_MAX_IMAGE_BYTES allows"
        )
    kind = image_format(data)
    if kind is None:
        raise CaptchaImageError(
            f"What the captcha's address returned is not an image: it starts with {data[:24]!r}"
        )
    return draw_svg(data) if kind == "svg" else data


def decode_data_uri(uri: str) -> bytes:
    """Return the bytes of a data: URI.

    White space is forgiven wherever browsers forgive it, after the comma too.

    :raises CaptchaImageError: it is not a data: URI, or its base64 is broken
    """
    head, comma, payload = uri.strip().partition(",")
    head = re.sub(r"[\t\r\n]", "", head)  # as the URL Standard does before it reads an address
    if not comma or not head.lower().startswith("data:"):
        raise CaptchaImageError(f"Not a data: URI: {uri[:40]!r}")
    data = unquote_to_bytes(payload.strip().encode("utf-8", "replace"))
    if not re.search(r";\s*base64\s*$", head, re.IGNORECASE):
        return data
    encoded = re.sub(rb"\s+", b"", data).rstrip(b"=")
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise CaptchaImageError(f"The captcha's data: URI has broken base64 ({error})") from None
