"""The ACECAPTCHA_ settings of a crawl, read in one place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scrapy_acecaptcha.errors import SettingsError
from scrapy_acecaptcha.recognition.journal import Journal

if TYPE_CHECKING:
    from scrapy.settings import BaseSettings


def whole_number(settings: BaseSettings, name: str, default: int, *, least: int) -> int:
    try:
        value = settings.getint(name, default)
    except (TypeError, ValueError):
        value = least - 1
    if value < least:
        raise SettingsError(
            f"{name} must be a whole number of at least {least}, not {settings.get(name)!r}"
        )
    return value


def positive_number(settings: BaseSettings, name: str, default: float) -> float:
    try:
        value = settings.getfloat(name, default)
    except (TypeError, ValueError):
        value = 0.0
    if not value > 0:
        raise SettingsError(f"{name} must be a number above 0, not {settings.get(name)!r}")
    return value


def open_journal(settings: BaseSettings) -> Journal | None:
    """The journal of ACECAPTCHA_JOURNAL, else one in the JOBDIR, where a resumed crawl finds it."""
    path = settings.get("ACECAPTCHA_JOURNAL")
    if not path and settings.get("JOBDIR"):
        path = Path(settings["JOBDIR"]) / "acecaptcha.db"
    if not path:
        return None
    return Journal(path, keep_days=settings.getint("ACECAPTCHA_JOURNAL_DAYS") or None)
