"""What counts as an image: data: URIs, sniffing, size limits, SVG drawn to PNG."""

from __future__ import annotations

import base64
import binascii
import importlib.util
import re
import subprocess
import sys
from contextlib import suppress
from typing import Any
from urllib.parse import unquote_to_bytes

from lxml import etree

from scrapy_acecaptcha.errors import CaptchaImageError

DEFAULT_MAX_BYTES = 1_000_000
MAX_SVG_PIXELS = 4_000_000
DRAWING_SECONDS = 5
DRAWING_BYTES = 500_000_000

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
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


def draw_svg(svg: bytes) -> bytes:
    """Draw an SVG to PNG on white, as the API is only documented for raster images.

    :raises CaptchaImageError: the extra is missing, or the SVG cannot be drawn
    """
    if importlib.util.find_spec("resvg_py") is None:
        raise CaptchaImageError(
            "The captcha is an SVG, which must be drawn before it can be read: "
            "pip install 'scrapy-acecaptcha[svg]'"
        )
    command = [sys.executable, "-I", "-S", "-c", _RENDERER, str(DRAWING_BYTES), *sys.path]
    source = _self_contained(svg)
    try:
        drawn = subprocess.run(  # noqa: S603 - our own code
            command, input=source, capture_output=True, check=True, timeout=DRAWING_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise CaptchaImageError(
            f"The captcha's SVG cannot be drawn within {DRAWING_SECONDS} seconds"
        ) from None
    except subprocess.CalledProcessError as error:
        told = error.stderr.decode(errors="replace").splitlines()
        reason = told[-1] if told and error.returncode > 0 else "it takes too much memory"
        raise CaptchaImageError(f"The captcha's SVG cannot be drawn: {reason}") from None
    return drawn.stdout


# A process of its own (15 ms): the renderer takes all the time and memory that a drawing asks for,
# and where there is no more memory it aborts the process that it runs in.
_RENDERER = """
import sys
limit, *sys.path = sys.argv[1:]
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
except (ImportError, ValueError):  # Windows, macOS
    pass
import resvg_py
svg = sys.stdin.buffer.read().decode()
sys.stdout.buffer.write(resvg_py.svg_to_bytes(svg_string=svg, background="white", dpi=96))
"""


def _self_contained(svg: bytes) -> bytes:
    """Drop what would make the renderer read other files: only the page's own drawing may leave."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False)
    try:
        root = etree.fromstring(svg.strip(), parser)
    except etree.XMLSyntaxError as error:
        raise CaptchaImageError(f"The captcha's SVG is broken: {error}") from None
    if etree.QName(root).localname != "svg":
        raise CaptchaImageError(f"The captcha's SVG is a <{root.tag}>")
    _check_size(root)
    for element in root.iter(etree.Element):
        for name, value in element.attrib.items():
            if etree.QName(name).localname == "href" and not value.startswith(("#", "data:")):
                del element.attrib[name]
    return bytes(etree.tostring(root, encoding="utf-8"))


def _check_size(root: Any) -> None:
    """Refuse what says of itself that it is huge; what does not say so meets DRAWING_BYTES."""
    box = root.get("viewBox", "").replace(",", " ").split()[2:]
    sizes = [root.get(name, "%") for name in ("width", "height")]
    width, height = (
        _number(inner if "%" in size else size)
        for size, inner in zip(sizes, [*box, "", ""], strict=False)
    )
    if width * height > MAX_SVG_PIXELS:
        raise CaptchaImageError(f"The captcha's SVG has {width:g} x {height:g} pixels")


def _number(text: str) -> float:
    digits = re.match(r"\s*\+?((?:\d+\.?\d*|\.\d+)(?:[eE]\+?\d+)?)", text)
    return float(digits[1]) if digits else 0.0


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
    copies: dict[Any, Any] = {}
    for source in element.iter(etree.Element):
        parent = copies.get(source.getparent())
        if source is element or parent is not None:
            with suppress(ValueError):  # the name is one that HTML takes and XML does not
                copies[source] = _copy_svg(source, parent)
    return bytes(etree.tostring(copies[element], encoding="utf-8", with_tail=False))


def _copy_svg(source: Any, parent: Any) -> Any:
    name = f"{{{_SVG}}}{_SVG_CASE.get(source.tag, source.tag)}"
    copy = etree.Element(name, nsmap={None: _SVG, "xlink": _XLINK})
    for attribute, value in source.attrib.items():
        prefix, _, local = attribute.rpartition(":")
        with suppress(ValueError):
            if prefix == "xlink":
                copy.set(f"{{{_XLINK}}}{local}", _printable(value))
            elif not prefix and attribute != "xmlns":
                copy.set(_SVG_CASE.get(attribute, attribute), _printable(value))
    copy.text, copy.tail = _printable(source.text), _printable(source.tail)
    if parent is not None:
        parent.append(copy)
    return copy


def _printable(text: str | None) -> str:
    """Text without the characters that XML forbids and HTML may have."""
    return re.sub("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]", "", text or "")
