from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, ClassVar

from scrapy import Request, Spider
from scrapy.http import Response


class TendersSpider(Spider):
    """Open tenders, behind a captcha that a script draws on a canvas and sends by itself.

    Only a browser can do that, so the request goes through scrapy-playwright. Nothing else is
    needed: the rule in the settings is the same as for plain requests.
    """

    name = "tenders"
    custom_settings: ClassVar[dict[str, Any]] = {  # type: ignore[misc]
        "DOWNLOAD_HANDLERS": {
            "http": "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler",
            "https": "scrapy_playwright.handler.ScrapyPlaywrightDownloadHandler",
        },
    }

    async def start(self) -> AsyncIterator[Request]:
        yield Request(
            f"http://{self.settings['TENDERS']}/", self.parse_tenders, meta={"playwright": True}
        )

    def parse_tenders(self, response: Response) -> Iterator[dict[str, Any]]:
        for tender in response.css("li.tender"):
            yield {"number": tender.attrib["data-number"], "subject": tender.css("::text").get()}
