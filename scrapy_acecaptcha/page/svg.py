"""SVG captchas: inline <svg> written as a document, and drawn to PNG in a process of its own."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from contextlib import suppress
from typing import Any

from lxml import etree

from scrapy_acecaptcha.errors import CaptchaImageError

MAX_SVG_PIXELS = 4_000_000
DRAWING_SECONDS = 5
DRAWING_BYTES = 500_000_000

# All that the renderer's process is told of the environment: no token and no password.
_ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL")

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"


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
            command,
            input=source,
            capture_output=True,
            check=True,
            timeout=DRAWING_SECONDS,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
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
