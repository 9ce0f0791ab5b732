"""What counts as an image, and what is done with SVG."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsel import Selector
from PIL import Image

from scrapy_acecaptcha.errors import CaptchaImageError
from scrapy_acecaptcha.page.images import decode_data_uri, image_format, readable_image
from scrapy_acecaptcha.page.svg import draw_svg, svg_source

XMLNS = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
RED, WHITE = (255, 0, 0), (255, 255, 255)


def picture(kind: str, color: tuple[int, int, int] = RED) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (20, 10), color).save(out, kind)
    return out.getvalue()


PNG = picture("PNG")
PNG_BASE64 = base64.b64encode(PNG).decode()


def svg(inside: str, attributes: str = 'width="20" height="10"') -> bytes:
    return f"<svg {XMLNS} {attributes}>{inside}</svg>".encode()


RED_BOX = svg('<rect width="10" height="10" fill="red"/>')


def drawn(source: bytes) -> tuple[tuple[int, int], set[tuple[int, int, int]]]:
    """Size and colours of an SVG once it is drawn."""
    png = Image.open(io.BytesIO(draw_svg(source)))
    assert png.format == "PNG"
    colors: Any = png.convert("RGBA").getcolors(10_000)
    return png.size, {color[:3] for _, color in colors}


# Sniffing


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP"])
def test_raster_images_go_as_they_came(kind: str) -> None:
    image = picture(kind)
    assert image_format(image) == kind.lower()
    assert readable_image(image) == image


@pytest.mark.parametrize(
    "start",
    [
        b"<svg>",
        b"<svg\n",
        b"\xef\xbb\xbf <svg ",
        b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg ",
        b"<?xml version='1.0'?><!DOCTYPE svg PUBLIC '-//W3C//DTD SVG 1.1//EN' ''><svg ",
        b"<?xml version='1.0'?><s:svg ",
        b"<s:svg xmlns:s='http://www.w3.org/2000/svg'>",
        b"<!--" + b"x" * 4000 + b"--><svg>",
    ],
)
def test_svg_is_told_by_its_beginning(start: bytes) -> None:
    assert image_format(start) == "svg"


@pytest.mark.parametrize(
    "data",
    [
        b"<!DOCTYPE html><title>Log in</title>",
        b"<html><svg></svg>",
        b"<?xml version='1.0'?><rss></rss>",
        b"<svgs>",
        b"<?xml" + b" " * 10_000_000,
        b"BMW has its seat in Munich",
        b"GIF88a",
        b"RIFF....WAVE",
        b"PNG",
        b"7364",
        b"%PDF-1.7",
        b'{"error": "session"}',
        b"\0",
    ],
    ids=lambda data: data[:12].decode(),
)
def test_what_is_not_an_image_is_refused(data: bytes) -> None:
    assert image_format(data) is None
    with pytest.raises(CaptchaImageError) as caught:
        readable_image(data, 100_000_000)
    assert str(caught.value) == (
        f"What the captcha's address returned is not an image: it starts with {data[:24]!r}"
    )


@given(st.binary())
def test_whatever_the_site_returns_is_an_image_or_refused(data: bytes) -> None:
    with suppress(CaptchaImageError):
        assert readable_image(data) == data


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(CaptchaImageError, match=r"^The captcha image is empty$"):
        readable_image(b"")


def test_a_large_image_is_refused() -> None:
    assert readable_image(PNG, len(PNG)) == PNG
    with pytest.raises(CaptchaImageError) as caught:
        readable_image(PNG + bytes(1_000_000))
    assert str(caught.value) == (
        f"The captcha image has {len(PNG) + 1_000_000:,} bytes, more than the 1,000,000 that "
        "ACECAPTCHA_MAX_IMAGE_BYTES allows"
    )


# data: URIs


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/png;base64,{PNG_BASE64}",
        f"data:image/png;base64, {PNG_BASE64}",
        f"data:image/png;base64,\n{PNG_BASE64}\n",
        f"  data:image/png;base64,{PNG_BASE64}",
        f"data:image/png;base64,{PNG_BASE64[:40]}\r\n  {PNG_BASE64[40:]}",
        f"data:image/png;base64,{PNG_BASE64.rstrip('=')}",
        f"data:image/png;base64,{quote(PNG_BASE64, safe='')}",
        f"data:image/png;base64,{PNG_BASE64[:40]}%0A{PNG_BASE64[40:]}",
        f"data:image/png;charset=utf-8;base64,{PNG_BASE64}",
        f"data:image/png; base64,{PNG_BASE64}",
        f"data:image/png;base64 ,{PNG_BASE64}",
        f"data:image/png;ba\nse64,{PNG_BASE64}",
        f"data:;base64,{PNG_BASE64}",
        f"DATA:image/PNG;BASE64,{PNG_BASE64}",
        f"data:image/png,{quote(PNG)}",
    ],
)
def test_data_uris_are_read_as_libraries_write_them(uri: str) -> None:
    assert decode_data_uri(uri) == PNG


@pytest.mark.parametrize(
    "uri",
    [
        f"data:image/svg+xml;utf8,{RED_BOX.decode()}",
        f"data:image/svg+xml;charset=utf-8,{quote(RED_BOX.decode())}",
        f"data:image/svg+xml,\n{RED_BOX.decode()}\n",
        f"data:image/svg+xml;base64,{base64.b64encode(RED_BOX).decode()}",
    ],
)
def test_data_uris_may_hold_svg(uri: str) -> None:
    assert decode_data_uri(uri) == RED_BOX


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "Not a data: URI: ''"),
        ("data:image/png;base64", "Not a data: URI: 'data:image/png;base64'"),
        ("http://example.org/a,b", "Not a data: URI: 'http://example.org/a,b'"),
        ("data:image/png;base64,A", "The captcha's data: URI has broken base64"),
        ("data:image/png;base64,AB*=", "The captcha's data: URI has broken base64"),
        ("data:image/png;base64,AB=C", "The captcha's data: URI has broken base64"),
        ("data:image/png;base64,ÄÖ", "The captcha's data: URI has broken base64"),
        ("data:image/png;base64,AB\ud800", "The captcha's data: URI has broken base64"),
    ],
)
def test_broken_data_uris_are_refused(uri: str, message: str) -> None:
    with pytest.raises(CaptchaImageError) as caught:
        decode_data_uri(uri)
    assert str(caught.value).startswith(message)


parts = st.text() | st.sampled_from(["data:", "base64", ";", ",", "image/png", "%", "=", "\ud800"])


@given(st.lists(parts).map("".join) | st.lists(parts).map("data:;base64,{}".format))
def test_whatever_stands_in_a_page_is_bytes_or_refused(uri: str) -> None:
    with suppress(CaptchaImageError):
        assert isinstance(decode_data_uri(uri), bytes)


@given(st.binary(), st.booleans(), st.lists(st.tuples(st.integers(0), st.sampled_from(" \n\t"))))
def test_white_space_in_base64_changes_nothing(
    data: bytes, padded: bool, spaces: list[tuple[int, str]]
) -> None:
    text = base64.b64encode(data).decode()
    text = text if padded else text.rstrip("=")
    for place, space in spaces:
        cut = place % (len(text) + 1)
        text = text[:cut] + space + text[cut:]
    assert decode_data_uri(f"data:image/png;base64,{text}") == data


# SVG


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="20" height="10"', (20, 10)),
        ('width="20px" height="1e1"', (20, 10)),
        ('width="1in" height="48pt"', (96, 64)),
        ('viewBox="0 0 60 30"', (60, 30)),
        ('width="100%" height="100%" viewBox="0 0 60 30"', (60, 30)),
        ('width="120" viewBox="0,0 60,30"', (120, 60)),
        ('viewBox="0 0 60000 30000" width="60" height="30"', (60, 30)),
        ("", (10, 10)),
    ],
)
def test_svg_is_drawn_in_its_own_size(attributes: str, size: tuple[int, int]) -> None:
    box = '<rect width="10" height="10" fill="red"/>'
    assert drawn(svg(box, attributes))[0] == size


def test_the_renderer_does_not_know_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[str, str]] = []

    def run(*args: object, **options: Any) -> Any:
        seen.append(options["env"])
        raise subprocess.TimeoutExpired("renderer", 1)

    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", "secret")
    monkeypatch.setattr("subprocess.run", run)
    with pytest.raises(CaptchaImageError):
        draw_svg(RED_BOX)
    assert "PATH" in seen[0]
    assert "secret" not in seen[0].values()


def test_svg_is_drawn_on_white() -> None:
    assert drawn(RED_BOX) == ((20, 10), {RED, WHITE})
    assert readable_image(RED_BOX) == draw_svg(RED_BOX)


@pytest.mark.parametrize(
    "source",
    [
        b"\n  " + RED_BOX,
        b"\xef\xbb\xbf" + RED_BOX,
        b'<?xml version="1.0"?>\n<!-- hand made -->' + RED_BOX,
        b'<?xml version="1.0" encoding="gbk"?>' + "<!-- 验证码 -->".encode("gbk") + RED_BOX,
        b'<?xml version="1.0" encoding="iso-8859-1"?>' + "<!-- é -->".encode("latin-1") + RED_BOX,
        RED_BOX.replace(b"<rect", b"<s:rect")
        .replace(b"svg", b"s:svg")
        .replace(b"xmlns=", b"xmlns:s=")
        .replace(b's:svg"', b'svg"'),
    ],
)
def test_svg_is_read_however_it_is_written(source: bytes) -> None:
    assert image_format(source) == "svg"
    assert drawn(source) == ((20, 10), {RED, WHITE})


def test_without_the_extra_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(CaptchaImageError, match=r"pip install 'scrapy-acecaptcha\[svg\]'$"):
        draw_svg(RED_BOX)


def inline(page: str) -> bytes:
    """The source of the <svg> in an HTML page."""
    return svg_source(Selector(page, type="html").xpath("//svg")[0].root)


def test_an_inline_svg_is_restored() -> None:
    source = inline(
        """<p>Before <svg WIDTH=20 height=10 viewBox="0 0 40 20" onclick="x" @click="y" a$b="z">
          <!-- lower case is the parser's --><sodipodi:view><g/></sodipodi:view>
          <defs><linearGradient id="g" gradientUnits="userSpaceOnUse">
            <stop offset="0" stop-color="red"/></linearGradient>
            <clipPath id="c"><rect width="20" height="20"/></clipPath></defs>
          <rect width="40" height="20" fill="url(#g)" clip-path="url(#c)"/>\x0c
          <use xlink:href="#none" xml:space="preserve"/>
        </svg> and behind</p>"""
    )
    root = Selector(source.decode(), type="xml")
    root.remove_namespaces()
    shape = [(e.root.tag, dict(e.root.attrib)) for e in root.xpath("//*")]
    assert shape == [
        ("svg", {"width": "20", "height": "10", "viewBox": "0 0 40 20", "onclick": "x"}),
        ("defs", {}),
        ("linearGradient", {"id": "g", "gradientUnits": "userSpaceOnUse"}),
        ("stop", {"offset": "0", "stop-color": "red"}),
        ("clipPath", {"id": "c"}),
        ("rect", {"width": "20", "height": "20"}),
        ("rect", {"width": "40", "height": "20", "fill": "url(#g)", "clip-path": "url(#c)"}),
        ("use", {"href": "#none"}),
    ]
    assert drawn(source) == ((20, 10), {RED, WHITE})


def test_an_inline_svg_with_text_is_restored() -> None:
    source = inline("<svg>a<text>b <tspan>c &amp; d</tspan> e</text>f</svg>")
    assert source.decode() == (f"<svg {XMLNS}>a<text>b <tspan>c &amp; d</tspan> e</text>f</svg>")


def test_a_deep_inline_svg_is_restored() -> None:
    assert inline("<svg>" + "<g>" * 5000 + "</svg>").count(b"<g>") >= 200


# Hostile SVG


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A picture on this machine, all blue, which no page may get at."""
    file = tmp_path / "secret.png"
    file.write_bytes(picture("PNG", (0, 0, 255)))
    (tmp_path / "secret.svg").write_bytes(
        svg('<g id="g"><rect width="20" height="10" fill="blue"/></g>')
    )
    (tmp_path / "secret.css").write_text("rect { fill: blue }")
    return file


FRAME = 'width="20" height="10"'


@pytest.mark.parametrize(
    "inside",
    [
        f'<image {FRAME} href="{{png}}"/>',
        f'<image {FRAME} href=" {{png}}"/>',
        f'<image {FRAME} xlink:href="file://{{png}}"/>',
        f'<image {FRAME} xlink:href="{{svg}}"/>',
        f'<a:image xmlns:a="http://www.w3.org/2000/svg" {FRAME} href="{{png}}"/>',
        f'<g xml:base="file://{{folder}}/"><image {FRAME} href="secret.png"/></g>',
        f'<filter id="f"><feImage href="{{png}}"/></filter><rect {FRAME} filter="url(#f)"/>',
        f'<rect {FRAME} style="fill: url(file://{{svg}}#g)" opacity="0"/>',
        '<use href="{svg}#g"/>',
        '<use xlink:href="file://{svg}#g"/>',
        "<style>@import url(file://{css});</style>",
        "<style>@import '{css}'; rect {{ mask: url({svg}#g) }}</style>",
        '<image {frame} href="data:image/svg+xml;base64,{nested}"/>',
    ],
)
def test_no_file_of_this_machine_is_drawn(inside: str, secret: Path) -> None:
    nested = svg(f'<image {FRAME} href="{secret}"/>')
    source = svg(
        inside.format(
            png=secret,
            svg=secret.with_suffix(".svg"),
            css=secret.with_suffix(".css"),
            folder=secret.parent,
            frame=FRAME,
            nested=base64.b64encode(nested).decode(),
        )
    )
    assert drawn(source) == ((20, 10), {WHITE})


def test_the_pictures_inside_a_drawing_are_drawn() -> None:
    source = svg(
        f'<image {FRAME} href="data:image/png;base64,{PNG_BASE64}"/>'
        '<g id="g"><rect width="5" height="5" fill="blue"/></g><use href="#g" x="5"/>'
    )
    assert drawn(source) == ((20, 10), {RED, (0, 0, 255)})


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 30))


@pytest.mark.parametrize(
    "source",
    [
        b'<!DOCTYPE svg [<!ENTITY f SYSTEM "file:///etc/hostname">]>' + svg("<text>&f;</text>"),
        f'<!DOCTYPE svg [<!ENTITY e0 "x">{ENTITIES}]>'.encode() + svg("<text>&e29;</text>"),
        f'<!DOCTYPE svg [<!ENTITY e0 "x">{ENTITIES}]>'.encode() + svg('<text x="&e29;"/>'),
        svg("<rect"),
        svg("<g>" * 100_000 + "</g>" * 100_000),
        svg("\xff").decode().encode("latin-1"),
        b"<?xml version='1.0' encoding='klingon'?>" + RED_BOX,
        b"<?xml version='1.0'?><html><svg></svg></html>",
        svg("", 'width="0" height="10"'),
        svg("", 'width="-5" height="10"'),
    ],
    ids=[
        "file",
        "bomb",
        "bomb in attribute",
        "cut",
        "deep",
        "latin-1",
        "klingon",
        "html",
        "0",
        "-",
    ],
)
def test_broken_svg_is_refused(source: bytes) -> None:
    assert image_format(source) == "svg"
    with pytest.raises(CaptchaImageError, match=r"^The captcha's SVG "):
        readable_image(source)


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="100000" height="100000"', "100000 x 100000"),
        ('width="1e9" height=" +1E+3px"', "1e+09 x 1000"),
        ('viewBox="0 0 60000 30000"', "60000 x 30000"),
        ('width="100%" viewBox="0,0,60000,30000"', "60000 x 30000"),
    ],
)
def test_huge_svg_is_refused_before_it_is_drawn(
    attributes: str, size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subprocess.run", None)
    with pytest.raises(
        CaptchaImageError, match=rf"^The captcha's SVG has {re.escape(size)} pixels$"
    ):
        draw_svg(svg("", attributes))


def bomb_png() -> str:
    """A small file that takes 3.6 GB once it is unpacked."""
    out = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()


@pytest.mark.parametrize(
    "source",
    [
        svg('<rect width="50000" height="50000"/>', ""),
        svg("", 'width="100000" viewBox="0 0 60 30"'),
        svg(f'<image {FRAME} href="data:image/png;base64,{bomb_png()}"/>'),
    ],
    ids=["no size", "one side", "png"],
)
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere memory is not limited")
def test_a_drawing_that_takes_much_memory_is_given_up(source: bytes) -> None:
    with pytest.raises(CaptchaImageError, match=r"SVG cannot be drawn: it takes too much memory$"):
        draw_svg(source)


def test_a_drawing_that_takes_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scrapy_acecaptcha.page.svg.DRAWING_SECONDS", 0.5)
    turbulence = '<feTurbulence baseFrequency="0.05" numOctaves="1000000000"/>'
    with pytest.raises(CaptchaImageError, match=r"SVG cannot be drawn within 0\.5 seconds$"):
        draw_svg(svg(f'<filter id="f">{turbulence}</filter><rect {FRAME} filter="url(#f)"/>'))


def test_a_drawing_that_multiplies_itself_is_given_up() -> None:
    levels = "".join(
        f'<g id="g{n}">' + f'<use href="#g{n - 1}"/>' * 10 + "</g>" for n in range(1, 9)
    )
    with pytest.raises(CaptchaImageError, match=r"^The captcha's SVG cannot be drawn: "):
        draw_svg(svg(f'<g id="g0"><rect {FRAME}/></g>{levels}'))
