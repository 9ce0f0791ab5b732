"""A rule's fields as keyword arguments, typed one by one for editors and type checkers.

Not imported when the package runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from scrapy_acecaptcha.playwright.scope import AnyLocator
from scrapy_acecaptcha.rules import FieldValue


class RuleFields(TypedDict, total=False):
    """See :class:`CaptchaRule`."""

    image: str | AnyLocator
    input: str | AnyLocator | None
    form: str | AnyLocator | None
    submit: str | AnyLocator | None
    fields: Mapping[str, FieldValue]
    frame: str | AnyLocator | None
    hosts: Sequence[str]
    refresh: str | AnyLocator | None
    success: str | AnyLocator | None
    failure: str | AnyLocator | None
    answer: str | None
    case: Literal["upper", "lower"] | None
    arithmetic: bool
    max_attempts: int | None
    after: Literal["auto", "stay", "return"]
    session: bool
    sessions: int
    budget: int
    capture: Literal["screenshot", "source"]
