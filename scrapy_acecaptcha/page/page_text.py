"""What a page shows in words, and what its scripts alert()."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Any

from lxml import etree

from scrapy_acecaptcha.selectors import squeeze

MAX_SCRIPT = 100_000  # characters of a page's text or scripts that are searched for words

_NOT_SHOWN = frozenset({"head", "script", "style", "noscript", "template"})
# Whatever can be seen without being text.
_has_shown_things = etree.XPath(
    "boolean(//img | //svg | //canvas | //iframe | //frame | //object | //embed | //video | //audio"
    " | //input[not(@type='hidden')] | //select | //textarea | //button)"
)
_scripts = etree.XPath(
    "//script/text() | //@onload | //@onclick | //@href[contains(., 'alert')]", smart_strings=False
)
_ALERT = re.compile(r"""\b(?:alert|confirm)\s{0,9}\(\s{0,9}(?:"([^"]{1,300})"|'([^']{1,300})')""")
_REFUSAL = re.compile(
    r"\b(?:wrong|incorrect|invalid|not (?:correct|right|valid|match)|error|failed|expired|"
    r"try again|incorrecto|inv[áa]lid[oa]|err[óo]ne[oa]|incorreto|falsch|ung[üu]ltig|fehler|"
    r"errat[oa]|faux|invalide|hatal\w|yanl\w\w)\b|неверн|неправильн|ошибк|गलत|错误|錯誤|不正确|有误"
)


class PageText:
    """The words of a parsed page, gathered once and in one pass.

    :param root: the page's <html>, as lxml has it
    """

    def __init__(self, root: Any) -> None:
        self._root = root

    @cached_property
    def _pieces(self) -> list[str]:
        return list(_shown_pieces(self._root))

    @cached_property
    def visible(self) -> str:
        """The text that the page shows, with single spaces and in lower case."""
        return squeeze(" ".join(self._pieces))

    @cached_property
    def _glued(self) -> str:
        return squeeze("".join(self._pieces))

    def has(self, text: str) -> bool:
        """Whether the page shows *text*, whatever the case and white space, as in Playwright.

        :param text: squeezed
        """
        # Two pieces of text are one word (`<b>W</b>rong`) or two (cells of a table).
        return text in self._glued or text in self.visible

    @property
    def is_blank(self) -> bool:
        """Whether the page shows no text, no picture and no control."""
        return not self.visible and not _has_shown_things(self._root)

    @property
    def sounds_refused(self) -> bool:
        """Whether the page has words of a refusal."""
        return sounds_refused(self.visible)

    @cached_property
    def alerts(self) -> list[str]:
        """What the page's scripts and handlers alert(), written out in them, squeezed."""
        scripts = "\n".join(_scripts(self._root))[:MAX_SCRIPT]
        return [squeeze(double or single) for double, single in _ALERT.findall(scripts)]


def sounds_refused(text: str) -> bool:
    """Whether a page's *text* has words of a refusal. They prove nothing, but are worth a look."""
    return bool(_REFUSAL.search(text[:MAX_SCRIPT]))


def _shown_pieces(root: Any) -> Iterator[str]:
    walker = etree.iterwalk(root, events=("start", "end", "comment", "pi"))
    for event, node in walker:
        if event != "start":
            if node.tail:
                yield node.tail
        elif node.tag in _NOT_SHOWN:
            walker.skip_subtree()
        elif node.text:
            yield node.text
