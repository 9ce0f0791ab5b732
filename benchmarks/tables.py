"""What a row of the table is, and what it is measured with."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    what: str
    ours: str
    otherwise: str
    target: str = ""
    reached: bool | None = None


@dataclass(frozen=True)
class Servers:
    """URLs of what the rows crawl and call."""

    site: str
    api: str
    services: str


def side_by_side(*tasks: Any) -> list[Any]:
    """Run what does not disturb each other at the same time."""
    with ThreadPoolExecutor(len(tasks)) as pool:
        return [future.result() for future in [pool.submit(task) for task in tasks]]
