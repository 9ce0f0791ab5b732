"""Controls of a form on a page in a browser, as in_page.CONTROLS tells of them."""

from __future__ import annotations

from typing import Any, TypedDict

from scrapy_acecaptcha.page.controls import NOT_TEXT, SUBMIT_TYPES


class Control(TypedDict):
    """What in_page.CONTROLS tells of a control."""

    index: int
    tag: str
    type: str
    name: str
    id: str
    value: str
    said: str
    caption: str
    mine: bool
    in_form: bool
    shown: bool
    free: bool
    is_image: bool
    is_box: bool
    checked: bool
    chosen: list[str]
    markup: str
    options: list[list[str]]


def named(control: Control) -> str:
    """How messages speak of a control."""
    return f"<input type={control['type']} name={control['name']!r} id={control['id']!r}>"


def is_text_field(control: Control) -> bool:
    """Whether people can type a text into it."""
    return control["tag"] == "input" and control["type"] not in NOT_TEXT and control["shown"]


def is_submit_button(control: Control) -> bool:
    """Whether it sends its form."""
    is_button = control["type"] in SUBMIT_TYPES and control["tag"] in ("button", "input")
    # A captcha that is an <input type=image> would submit the form, too.
    return is_button and control["in_form"] and control["shown"] and not control["is_image"]


def key_of(control: Control) -> tuple[str, ...]:
    """What tells a control from others on the page that comes after it."""
    value = control["value"] if control["type"] in ("checkbox", "radio") else ""
    return control["tag"], control["name"], control["id"], value


def state_of(control: Control) -> tuple[Any, ...]:
    """What somebody has made of a control."""
    if control["type"] in ("checkbox", "radio"):
        return (control["checked"],)
    return control["value"], control["chosen"]
