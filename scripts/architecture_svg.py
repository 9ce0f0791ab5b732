"""Draws docs/architecture.svg: the parts of the package, from the top to what all others use.

    python -m scripts.architecture_svg

The picture brings its own background, so that it can be read on dark pages, too.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

TARGET = Path(__file__).parent.parent / "docs" / "architecture.svg"

FRONT, CORE, BASE = "#dbe9ff", "#dff3e4", "#f1f2f4"

# The layers of tests/test_structure.py: (colour, {module: what it is}).
LAYERS: list[tuple[str, dict[str, str]]] = [
    (FRONT, {"cli": "the command acecaptcha", "__main__": "the same by python -m"}),
    (FRONT, {"addon": "one line turns it on in Scrapy", "__init__": "the public names"}),
    (FRONT, {"crawl": "the Scrapy front end: one solve at a time per session"}),
    (FRONT, {"playwright": "the Playwright front end: solve_captcha, watch_captchas"}),
    (CORE, {"solver": "recognition and the loop together", "report": "the journal as a page"}),
    (CORE, {"recognition": "image in, text out: API, journal", "detect": "finds captchas"}),
    (CORE, {"page": "an HTML page without network: forms, images"}),
    (CORE, {"flow": "the loop, without I/O", "verdict": "was the answer right?"}),
    (BASE, {"rule_book": "host -> rule", "rules": "CaptchaRule", "arithmetic": "sums"}),
    (
        BASE,
        {"selectors": "CSS, XPath", "errors": "exceptions", "signals": "Scrapy", "hosts": "URLs"},
    ),
]

WIDTH, HEIGHT, GAP, LEFT, TOP = 780, 46, 12, 70, 24


def draw() -> str:
    """Return the picture."""
    height = TOP + len(LAYERS) * (HEIGHT + GAP) + TOP - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'width="{WIDTH}" height="{height}" role="img" font-size="13" '
        'font-family="system-ui, -apple-system, Segoe UI, Roboto, Helvetica, Arial, sans-serif">',
        "<title>The parts of scrapy-acecaptcha; imports run down only</title>",
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{height - 1}" rx="10" fill="#fff" '
        'stroke="#c6cbd1"/>',
        f'<path d="M36 {TOP}V{height - TOP - 8}" stroke="#57606a" stroke-width="2"/>',
        f'<path d="M29 {height - TOP - 10}h14l-7 10z" fill="#57606a"/>',
        f'<text transform="translate(24 {height // 2}) rotate(-90)" text-anchor="middle" '
        'fill="#57606a">imports run down only</text>',
    ]
    for row, (colour, modules) in enumerate(LAYERS):
        width = (WIDTH - LEFT - 20 - GAP * (len(modules) - 1)) / len(modules)
        for column, (name, what) in enumerate(modules.items()):
            x, y = LEFT + column * (width + GAP), TOP + row * (HEIGHT + GAP)
            middle = x + width / 2
            parts += [
                f'<rect x="{x:g}" y="{y}" width="{width:g}" height="{HEIGHT}" rx="6" '
                f'fill="{colour}" stroke="#8c959f"/>',
                f'<text x="{middle:g}" y="{y + 19}" text-anchor="middle" font-weight="600" '
                f'fill="#1f2328">{name}</text>',
                f'<text x="{middle:g}" y="{y + 36}" text-anchor="middle" '
                f'fill="#424a53">{escape(what)}</text>',
            ]
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    TARGET.write_text(draw())
