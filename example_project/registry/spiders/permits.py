from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

from registry.spiders.court import COMPANIES
from scrapy import Request, Spider
from scrapy.http import JsonRequest

from scrapy_acecaptcha import CaptchaRule, Solver


class Query:
    """One query of the JSON API, in which no rule could find an image or a form."""

    rule = CaptchaRule(image="auto", answer=r"\d{4}", max_attempts=10)

    def __init__(self, spider: Spider, company: str) -> None:
        assert spider.crawler.engine is not None
        self.url = f"http://{spider.settings['PERMITS']}/"  # for the journal
        self._api = f"{self.url}api"
        self._download = spider.crawler.engine.download_async
        self._company = company
        self.reply: Any = None

    async def image(self) -> bytes:
        response: Any = await self._download(Request(f"{self._api}/captcha"))
        captcha = response.json()
        self._captcha = captcha["id"]
        return base64.b64decode(captcha["image"].partition(",")[2])

    async def submit(self, answer: str) -> None:
        query = {"captcha": self._captcha, "answer": answer, "company": self._company}
        self.reply = await self._download(
            JsonRequest(f"{self._api}/search", data=query, meta={"handle_httpstatus_all": True})
        )

    def solved(self) -> bool:
        return bool(self.reply.status == 200)

    def renew(self) -> bool:
        return True


class PermitsSpider(Spider):
    """How many permits each company has, by the Solver: the spider writes what the API is like."""

    name = "permits"

    async def start(self) -> AsyncIterator[Any]:
        for company in COMPANIES:
            query = Query(self, company)
            await Solver.from_crawler(self.crawler).solve(query)
            yield query.reply.json()
