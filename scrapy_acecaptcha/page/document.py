"""A parsed page's forms, controls and labels, found in one pass."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import islice
from typing import Any

from lxml import etree
from parsel import Selector

from scrapy_acecaptcha.page.controls import (
    CONTROLS,
    MAX_SAID,
    beginning_of_text,
    is_text,
)
from scrapy_acecaptcha.page.source import MAX_PAGE, bounded

MAX_CONTROLS = 2_000
MAX_MARKS = 20_000  # forms, labels, options and controls of a page
MAX_LABELS = 3  # of one control that are read
_FORM_END = "<?form-end>"  # a comment to HTML parsers, set before each </form>
_BEFORE_FORM_END = re.compile(r"(?=</form[\s>/])", re.IGNORECASE)
_SAYING = ("name", "id", "placeholder", "title", "aria-label")


class TooLarge(Exception):
    """The page has more of something than is looked at; says of what."""


class Document:
    """A page as a browser sees its forms.

    A form begins and ends at its tags, even where a tag between them (`</td>`) ends all that the
    form stands in, and with it the form's element in the tree. So the source is marked before it is
    parsed, into a tree that only this object has.

    :param html: the page's source
    :param base_url: what relative addresses are relative to
    :raises TooLarge: more than MAX_PAGE characters, MAX_CONTROLS controls or MAX_MARKS elements
    """

    def __init__(self, html: str, base_url: str) -> None:
        if len(html) > MAX_PAGE:
            raise TooLarge(f"has {len(html):,} characters; {MAX_PAGE:,} are looked at")
        marked, ends = _BEFORE_FORM_END.subn(_FORM_END, bounded(html), count=MAX_MARKS + 1)
        if ends > MAX_MARKS:
            raise TooLarge(f"has more than {MAX_MARKS:,} ends of forms")
        self.selector = Selector(text=marked, type="html", base_url=base_url)
        self.forms: list[Any] = []
        self.controls: list[Any] = []
        self._forms_by_id: dict[str, Any] = {}
        self._labels: dict[str, list[Any]] = {}  # by their `for`
        self._options: dict[Any, list[Any]] = {}  # by their <select>
        self._around: dict[Any, Any] = {}  # the form around each control, by tags
        self._said: dict[Any, str] = {}
        self._label_texts: dict[Any, str] = {}
        self._is_blocked: dict[Any, bool] = {}
        self._legends: dict[Any, Any] = {}
        self._read(self.selector.root)

    def _read(self, root: Any) -> None:
        tags = ("form", "label", "option", *CONTROLS, etree.Comment, etree.PI)
        has_templates = next(root.iter("template"), None) is not None
        form = None
        count = 0
        for node in root.iter(*tags):
            if not isinstance(node.tag, str):
                form = None if _is_form_end(node) else form
                continue
            count += 1
            if count > MAX_MARKS:
                raise TooLarge(f"has more than {MAX_MARKS:,} forms, labels and options")
            if node.tag == "form":
                self.forms.append(node)
                self._forms_by_id.setdefault(node.get("id") or "", node)
                form = node if form is None else form
            elif node.tag == "label":
                self._labels.setdefault(node.get("for") or "", []).append(node)
            elif node.tag == "option":
                select = next(node.iterancestors("select"), None)
                self._options.setdefault(select, []).append(node)
            elif not (has_templates and _is_inside(node, "template")):
                self.controls.append(node)
                self._around[node] = form
                if len(self.controls) > MAX_CONTROLS:
                    raise TooLarge(f"has more than {MAX_CONTROLS:,} controls")

    def forms_of(self, elements: Iterable[Any]) -> list[Any]:
        """The form of each of *elements*: by its form attribute, else by the tags around it."""
        wanted = list(elements)
        unknown = {e for e in wanted if e not in self._around and e.get("form") is None}
        if unknown:
            self._look_around(unknown)
        return [
            self._around.get(e)
            if e.get("form") is None
            else self._forms_by_id.get(e.get("form"))
            if e.get("form")
            else None
            for e in wanted
        ]

    def form_of(self, element: Any) -> Any:
        """The form that *element* belongs to, as browsers see it; None if there is none."""
        return self.forms_of([element])[0]

    def _look_around(self, unknown: set[Any]) -> None:
        form, left = None, len(unknown)
        for node in self.selector.root.iter():
            if not isinstance(node.tag, str):
                form = None if _is_form_end(node) else form
            elif form is None and node.tag == "form":
                form = node
            if node in unknown:
                self._around[node] = form
                left -= 1
                if not left:
                    return

    def controls_of(self, form: Any) -> list[Any]:
        """The controls of *form* in the document's order, those tied to it by form="id" too."""
        owners = self.forms_of(self.controls)
        return [c for c, owner in zip(self.controls, owners, strict=True) if owner is form]

    def options_of(self, select: Any) -> list[Any]:
        """The options of a <select>, in order."""
        return self._options.get(select, [])

    def label_text(self, control: Any) -> str:
        """What an <input> says of itself: name, id, placeholder and labels, each cut short."""
        if control.tag != "input":
            return ""
        if control not in self._said:
            labels = list(islice(control.iterancestors("label"), MAX_LABELS))
            if control.get("id"):
                labels += self._labels.get(control.get("id"), [])[:MAX_LABELS]
            said = [(control.get(name) or "")[:MAX_SAID] for name in _SAYING]
            self._said[control] = " | ".join(said + [self._label_text(label) for label in labels])
        return self._said[control]

    def _label_text(self, label: Any) -> str:
        if label not in self._label_texts:
            self._label_texts[label] = beginning_of_text(label, 3 * MAX_SAID)
        return self._label_texts[label]

    def text_fields(self) -> list[Any]:
        """The page's fields for a line of text."""
        return [control for control in self.controls if is_text(control)]

    def is_disabled(self, control: Any) -> bool:
        """Whether *control* is disabled, by itself or by a fieldset or datalist around it."""
        return control.get("disabled") is not None or self._blocked(control)

    def _blocked(self, element: Any) -> bool:
        chain = []
        node = element
        while node is not None and node not in self._is_blocked:
            chain.append(node)
            node = node.getparent()
        blocked = node is not None and self._is_blocked[node]
        for inside in reversed(chain):
            blocked = blocked or self._blocks(inside.getparent(), inside)
            self._is_blocked[inside] = blocked
        return blocked

    def _blocks(self, parent: Any, inside: Any) -> bool:
        if parent is None or parent.tag not in ("datalist", "fieldset"):
            return False
        if parent.tag == "datalist":
            return True
        if parent.get("disabled") is None:
            return False
        if parent not in self._legends:
            self._legends[parent] = parent.find("legend")
        return self._legends[parent] is not inside


def without_marks(text: str) -> str:
    """*text* of a marked page as it stands in the page itself."""
    return text.replace(_FORM_END, "")


def _is_form_end(node: Any) -> bool:
    return _FORM_END in (f"<{node.text}>", f"<?{getattr(node, 'target', '')}>")


def _is_inside(node: Any, tag: str) -> bool:
    return next(node.iterancestors(tag), None) is not None
