"""The controls of forms, each by itself: kinds, captions, values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from scrapy_acecaptcha.page.form_encoding import Entry

CONTROLS = ("input", "select", "textarea", "button")
SUBMIT_TYPES = frozenset({"submit", "image"})
BUTTON_TYPES = SUBMIT_TYPES | {"button", "reset"}
NOT_FILLED = frozenset({*BUTTON_TYPES, "select", "file"})
_OTHER_KINDS = {"hidden", "checkbox", "radio", "file", "range", "color", "date"}
NOT_TEXT = BUTTON_TYPES | _OTHER_KINDS
MAX_SAID = 100  # characters of an attribute in which words are looked for
MAX_NODES = 60  # elements inside of a label or an option that are read


def kind_of(control: Any) -> str:
    """The type of an <input> or <button>; for others the name of the element."""
    kind = (control.get("type") or "").lower()
    if control.tag == "button":
        return kind if kind in ("button", "reset") else "submit"
    return kind if control.tag == "input" else str(control.tag)


def is_submit(control: Any) -> bool:
    """Whether *control* is a button that sends its form; an untyped <button> is one."""
    return control.tag in ("button", "input") and kind_of(control) in SUBMIT_TYPES


def is_text(control: Any) -> bool:
    """Whether people type a line of text into *control*."""
    return (
        control.tag == "input"
        and kind_of(control) not in NOT_TEXT
        and control.get("readonly") is None
    )


def beginning_of_text(element: Any, limit: int = 1000) -> str:
    """The first *limit* characters of what *element* says; of its elements only the first few."""
    return "".join(_texts(element))[:limit]


def _texts(element: Any) -> Iterator[str]:
    inside = list(islice(element.iter(), MAX_NODES))
    if len(inside) < MAX_NODES:
        yield from element.itertext(with_tail=False)
        return
    for node in inside:
        if isinstance(node.tag, str):
            yield node.text or ""
        if node is not element:
            yield node.tail or ""


def told_name(control: Any) -> str:
    """How an error names *control*."""
    kind = kind_of(control)[:MAX_SAID] or "text"
    name, ident = ((control.get(key) or "")[:MAX_SAID] or None for key in ("name", "id"))
    return f"<input type={kind} name={name!r} id={ident!r}>"


def caption(button: Any) -> str:
    """What stands on *button*."""
    if button.tag == "button":
        return beginning_of_text(button)
    return str(button.get("value") or button.get("alt") or "")


def is_checked(control: Any) -> bool:
    """Whether the page checks a box or a radio button."""
    return control.get("checked") is not None


def box_value(box: Any) -> str:
    """What a checkbox or radio button sends when it is checked."""
    return str(box.get("value", "on"))


def plain_value(control: Any) -> str:
    """The value of a control that has one and needs not be chosen."""
    if control.tag == "textarea":
        return re.sub(r"\A\r?\n", "", control.text or "")  # HTML ignores a first line end
    value = "" if kind_of(control) == "file" else control.get("value", "")
    return str(value) if kind_of(control) == "hidden" else re.sub(r"[\r\n]", "", value)


def pressed(button: Any) -> list[Entry]:
    """What a button sends when it is pressed."""
    name = button.get("name")
    if kind_of(button) == "image":  # where it was clicked on
        prefix = f"{name}." if name else ""
        return [Entry(f"{prefix}x", "0"), Entry(f"{prefix}y", "0")]
    # Without a value, <input type=submit> sends what Chromium writes on it.
    nothing = "Submit" if button.tag == "input" else ""
    return [Entry(name, button.get("value", nothing))] if name else []


def option_text(option: Any) -> str:
    """What an option shows."""
    return " ".join(re.findall(r"[^ \t\n\f\r]+", beginning_of_text(option)))


def option_value(option: Any) -> str:
    """What an option sends when it is chosen."""
    value = option.get("value")
    return option_text(option) if value is None else str(value)


def chosen_options(select: Any, options: list[Any], picked: set[Any] | None) -> list[str]:
    """Values that a <select> sends: the chosen options, or the first of a drop-down.

    :param picked: options to choose instead of those that the page chooses
    """
    if picked is None:
        chosen = [o for o in options if o.get("selected") is not None]
    else:
        chosen = [o for o in options if o in picked]
    if select.get("multiple") is None:
        lines = re.match(r"\s*\+?(\d{1,9})", select.get("size", ""))
        is_drop_down = lines is None or int(lines[1]) < 2
        usable = (o for o in options if not _is_disabled_option(o))
        chosen = chosen[-1:] or list(islice(usable, int(is_drop_down)))
    return [option_value(o) for o in chosen if not _is_disabled_option(o)]


def _is_disabled_option(option: Any) -> bool:
    group = option.getparent()
    return option.get("disabled") is not None or (
        group.tag == "optgroup" and group.get("disabled") is not None
    )
