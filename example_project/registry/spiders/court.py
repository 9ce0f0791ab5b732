from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from scrapy import Request, Spider
from scrapy.http import Response

COMPANIES = (
    "Northgate Shipwrights Ltd",
    "Saltmarsh Bakery Cooperative",
    "Lantern Timber Partners",
    "Harbour Instruments Ltd",
    "Tidewater Textiles Cooperative",
    "Heron Orchards Partners",
    "Mossbridge Shipwrights Ltd",
    "Quarry Bakery Cooperative",
)


class CourtSpider(Spider):
    """Proceedings against each of a list of companies, one query each.

    The query goes along with the answer to the captcha, as `fields` of the search form; the
    callback gets the page with the result. `sessions` in the rule lets queries run side by side.
    """

    name = "court"

    async def start(self) -> AsyncIterator[Request]:
        for company in COMPANIES:
            yield Request(
                f"http://{self.settings['COURT']}/search",
                self.parse_result,
                cb_kwargs={"company": company},
                meta={"acecaptcha": {"fields": {"company": company}}},
                dont_filter=True,
            )

    def parse_result(self, response: Response, company: str) -> Iterator[dict[str, Any]]:
        cases = [
            dict(
                zip(("case", "matter", "filed", "state"), row.css("td::text").getall(), strict=True)
            )
            for row in response.css("#cases tr")[1:]
        ]
        yield {"company": company, "cases": cases}
