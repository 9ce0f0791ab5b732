"""What counts as an image: data: URIs, sniffing, size limits, SVG drawn to PNG."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote_to_bytes

from lxml import etree

from scrapy_acecaptcha.errors import CaptchaImageError

DEFAULT_MAX_BYTES = 1_000_000

_SIGNATURES = {
    "png": (b"\x89PNG\r\n\x1a\n",),
    "jpeg": (b"\xff\xd8\xff",),
    "gif": (b"GIF87a", b"GIF89a"),
    "bmp": (b"BM",),
}
_SVG_START = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!--|<!DOCTYPE\s+svg|<svg[\s>])", re.IGNORECASE
)


def image_format(data: bytes) -> str | None:
    """Tell an image by its first bytes: png, jpeg, gif, bmp, webp, svg; None for anything else."""
    for name, signatures in _SIGNATURES.items():
        if data.startswith(signatures):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if _SVG_START.match(data) and re.search(rb"<(?:\w+:)?svg[\s>]", data[:4096]):
        return "svg"
    return None


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
    if not comma or not head.lower().startswith("data:"):
        raise CaptchaImageError(f"Not a data: URI: {uri[:40]!r}")
    if not re.search(r";\s*base64\s*$", head, re.IGNORECASE):
        return unquote_to_bytes(payload.strip())
    encoded = re.sub(rb"\s+", b"", unquote_to_bytes(payload)).rstrip(b"=")
    try:
        return base64.b64decode(encoded + b"=" * (-len(encoded) % 4), validate=True)
    except binascii.Error as error:
        raise CaptchaImageError(f"The captcha's data: URI has broken base64 ({error})") from None


def draw_svg(svg: bytes) -> bytes:
    """Draw an SVG to PNG on white, as the API is only documented for raster images.

    :raises CaptchaImageError: the extra is missing, or the SVG cannot be drawn
    """
    try:
        import resvg_py  # noqa: PLC0415 - an extra
    except ImportError:
        raise CaptchaImageError(
            "The captcha is an SVG, which must be drawn before it can be read: "
            "pip install 'scrapy-acecaptcha[svg]'"
        ) from None
    try:
        return bytes(resvg_py.svg_to_bytes(svg_string=_self_contained(svg), background="white"))
    except Exception as error:  # the renderer raises ValueError and bare Exceptions
        raise CaptchaImageError(f"The captcha's SVG cannot be drawn: {error}") from None


def _self_contained(svg: bytes) -> str:
    """Drop what would make the renderer read other files: only the page's own drawing may leave."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    root = etree.fromstring(svg, parser)
    for element in root.xpath(
        "//*[local-name()='image' or local-name()='feImage' or local-name()='use']"
    ):
        for name, value in list(element.attrib.items()):
            if etree.QName(name).localname == "href" and not value.startswith(("#", "data:")):
                del element.attrib[name]
    return str(etree.tostring(root, encoding="unicode"))


# The HTML parser writes names in lower case, an SVG renderer wants them as below. Source: the
# tables "adjust SVG attributes" and "SVG tag names" of the HTML Standard, 13.2.6.
_SVG_NAMES = """
    altGlyph animateColor animateMotion animateTransform clipPath feBlend feColorMatrix
    feComponentTransfer feComposite feConvolveMatrix feDiffuseLighting feDisplacementMap
    feDistantLight feDropShadow feFlood feFuncA feFuncB feFuncG feFuncR feGaussianBlur feImage
    feMerge feMergeNode feMorphology feOffset fePointLight feSpecularLighting feSpotLight feTile
    feTurbulence foreignObject linearGradient radialGradient textPath attributeName
    attributeType baseFrequency calcMode clipPathUnits diffuseConstant edgeMode filterUnits
    gradientTransform gradientUnits kernelMatrix kernelUnitLength keyPoints keySplines keyTimes
    lengthAdjust limitingConeAngle markerHeight markerUnits markerWidth maskContentUnits
    maskUnits numOctaves pathLength patternContentUnits patternTransform patternUnits pointsAtX
    pointsAtY pointsAtZ preserveAlpha preserveAspectRatio primitiveUnits refX refY repeatCount
    repeatDur requiredExtensions requiredFeatures specularConstant specularExponent spreadMethod
    startOffset stdDeviation stitchTiles surfaceScale systemLanguage tableValues targetX targetY
    textLength viewBox viewTarget xChannelSelector yChannelSelector zoomAndPan
"""
_SVG_CASE = {name.lower(): name for name in _SVG_NAMES.split()}


def svg_source(element: Any) -> bytes:
    """Write an inline <svg> of a parsed HTML page as a document of its own."""
    root = etree.Element(
        "svg", nsmap={None: "http://www.w3.org/2000/svg", "xlink": "http://www.w3.org/1999/xlink"}
    )
    _copy_svg(element, root)
    return bytes(etree.tostring(root))


def _copy_svg(source: Any, target: Any) -> None:
    for name, value in source.attrib.items():
        local = name.rpartition(":")[2]
        if name.startswith("xmlns"):
            continue
        if name.startswith("xlink:"):
            target.set(f"{{http://www.w3.org/1999/xlink}}{local}", value)
        elif ":" not in name:
            target.set(_SVG_CASE.get(name, name), value)
    target.text, target.tail = source.text, source.tail
    for child in source:
        if isinstance(child.tag, str) and ":" not in child.tag:
            tag = _SVG_CASE.get(child.tag, child.tag)
            _copy_svg(child, etree.SubElement(target, f"{{http://www.w3.org/2000/svg}}{tag}"))
