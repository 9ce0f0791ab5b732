"""Scrapy's stats as a file that others can watch."""

from __future__ import annotations

import json
from pathlib import Path

from scrapy import signals
from scrapy.crawler import Crawler
from scrapy.exceptions import NotConfigured


class StatsFile:
    """Writes the stats to the JSON file that the setting STATS_FILE names, with every item."""

    def __init__(self, crawler: Crawler) -> None:
        path = crawler.settings.get("STATS_FILE")
        if not path:
            raise NotConfigured
        self._path = Path(path)
        self._crawler = crawler
        crawler.signals.connect(self.write, signals.item_scraped)
        crawler.signals.connect(self.write, signals.engine_stopped)

    @classmethod
    def from_crawler(cls, crawler: Crawler) -> StatsFile:
        return cls(crawler)

    def write(self) -> None:
        """Replace the file in one step: readers never see half of it."""
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(self._crawler.stats.get_stats(), default=str, indent=2))
        draft.replace(self._path)
