"""Where the time goes: a profile, told by package and by function of ours."""

from __future__ import annotations

import pstats
from collections import Counter
from pathlib import PurePath
from typing import Any

Function = tuple[str, int, str]

_PACKAGES = {
    "scrapy_acecaptcha": "scrapy_acecaptcha",
    "scrapy": "Scrapy",
    "pydispatch": "Scrapy",
    "twisted": "Twisted",
    "asyncio": "asyncio",
    "parsel": "parsel and lxml",
    "lxml": "parsel and lxml",
    "cssselect": "parsel and lxml",
    "w3lib": "parsel and lxml",
}


class Profile:
    """A profile that cProfile has dumped to *path*.

    :param units: pages or solves that were profiled
    """

    def __init__(self, path: str, units: int) -> None:
        self._stats: dict[Function, tuple[Any, ...]] = vars(pstats.Stats(path))["stats"]
        self._units = units

    def packages(self) -> list[tuple[str, float]]:
        """Packages and their share of the time; C functions count for whoever called them."""
        spent: Counter[str] = Counter()
        for function, (_, _, own, _, callers) in self._stats.items():
            if function[2].endswith("poll' of 'select.epoll' objects>"):
                continue  # waiting
            if function[0] == "~" and callers:
                for caller, (_, _, time_for_caller, _) in callers.items():
                    spent[_package(caller)] += time_for_caller
            else:
                spent[_package(function)] += own
        total = spent.total()
        return [(name, seconds / total) for name, seconds in spent.most_common()]

    def functions(self, least: float) -> list[tuple[str, float]]:
        """Our functions that take *least* seconds a unit with all they call, and how many."""
        ours = [
            (f"{PurePath(path).stem}.{name}", cumulative / self._units)
            for (path, _, name), (_, _, _, cumulative, _) in self._stats.items()
            if "scrapy_acecaptcha" in path and not name.startswith("<")
        ]
        return sorted((f for f in ours if f[1] >= least), key=lambda f: -f[1])


def _package(function: Function) -> str:
    parts = PurePath(function[0]).parts
    return next((name for part, name in _PACKAGES.items() if part in parts), "everything else")
