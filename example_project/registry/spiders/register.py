from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Response


class RegisterSpider(Spider):
    """All records of the register: listing pages, and the records that they link to.

    The register answers 403 with a captcha in place of a record. The callbacks never see that.
    """

    name = "register"

    async def start(self) -> AsyncIterator[Request]:
        yield Request(f"http://{self.settings['REGISTER']}/records/")

    def parse(self, response: Response, **kwargs: Any) -> Iterator[Request]:
        records = response.css("#companies a::attr(href)").getall()
        yield from response.follow_all(records, self.parse_record)
        yield from response.follow_all(response.css("a[rel=next]::attr(href)").getall())

    def parse_record(self, response: Response) -> Iterator[dict[str, Any]]:
        rows = response.css("#record tr")
        fields = {row.css("th::text").get("").lower(): row.css("td::text").get() for row in rows}
        yield {"name": response.css("h1::text").get(), **fields, "url": response.url}
