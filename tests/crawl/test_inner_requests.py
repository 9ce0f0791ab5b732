"""Where a captcha's page may send the crawl, and with what."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from scrapy import Request

from scrapy_acecaptcha.crawl import inner_requests
from scrapy_acecaptcha.crawl.inner_requests import INNER, check_target
from scrapy_acecaptcha.errors import CaptchaFormError, CaptchaImageError
from tests.crawling import run_crawl
from tests.site import CaptchaSite
from tests.site.drawing import Gallery

NAMES = {
    "shop.example": ["93.184.216.34"],
    "cdn.example": ["93.184.216.35"],
    "inside.example": ["93.184.216.36", "127.0.0.1"],
    "intranet": ["10.0.0.5"],
    "pictures.intranet": ["10.0.0.6"],
}


def inner(page: str, url: str, *hosts: str, space: str | None = None, **more: Any) -> Request:
    noted = {"page": page, "space": space, "hosts": list(hosts)}
    return Request(url, meta={INNER: noted, **more.pop("meta", {})}, **more)


@pytest.fixture
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    async def addresses_of(host: str) -> list[str]:
        return NAMES.get(host, [])

    monkeypatch.setattr(inner_requests, "addresses_of", addresses_of)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize(
    "request_",
    [
        inner("http://shop.example/", "http://shop.example:81/c.png"),
        inner("http://shop.example/", "http://cdn.example/c.png"),
        inner("http://shop.example/", "http://unknown.example/c.png"),
        inner("http://shop.example/", "http://127.0.0.1/c.png", "127.0.0.1"),
        inner(
            "http://shop.example/", "http://cdn.example/", "cdn.example", method="POST", body="a"
        ),
        inner("http://127.0.0.1:1/", "http://localhost:2/c.png"),
        inner("http://127.0.0.1:1/", "http://10.0.0.5/c.png"),
        inner("http://10.0.0.5/", "http://10.0.0.6/c.png"),
        inner("http://intranet/", "http://pictures.intranet/c.png"),
        inner("http://shop.example/", "http://inside.example/c", meta={"proxy": "http://p:1"}),
    ],
    ids=lambda request: request.url,
)
@ensureDeferred
async def test_a_request_that_may_be_made(request_: Request) -> None:
    await check_target(request_)


@pytest.mark.usefixtures("_names")
@pytest.mark.parametrize(
    "request_",
    [
        inner("http://shop.example/", "http://127.0.0.1:8080/admin"),
        inner("http://shop.example/", "http://127.1/admin"),
        inner("http://shop.example/", "http://2130706433/admin"),
        inner("http://shop.example/", "http://[::ffff:7f00:1]/admin"),
        inner("http://shop.example/", "http://localhost/admin"),
        inner("http://shop.example/", "http://169.254.169.254/latest/meta-data"),
        inner("http://shop.example/", "http://192.168.0.1/"),
        inner("http://shop.example/", "http://inside.example/"),
        inner("http://shop.example/", "http://intranet/"),
        inner("http://shop.example/", "http://127.0.0.1/", meta={"proxy": "http://p:1"}),
        inner("http://10.0.0.5/", "http://127.0.0.1/"),
        inner("http://intranet/", "http://inside.example/"),
        inner("http://intranet/", "http://pictures.intranet/", space="public"),
        inner("http://shop.example/", "http://cdn.example/", method="POST", body="a=1"),
    ],
    ids=lambda request: request.url,
)
@ensureDeferred
async def test_a_request_that_must_not_be_made(request_: Request) -> None:
    with pytest.raises(CaptchaFormError, match='"hosts"'):
        await check_target(request_)


# In a crawl


class _Site(ThreadingHTTPServer):
    """A site whose pages a test makes up; every address of this machine leads to it."""

    daemon_threads = True

    def __init__(self, gallery: Gallery) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gallery = gallery
        self.page = ""
        self.moved = ""
        self.seen: list[tuple[str, str, Any]] = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def other(self) -> str:
        return f"http://localhost:{self.server_port}"

    def at_other(self) -> list[tuple[str, str, Any]]:
        return [seen for seen in self.seen if seen[2]["Host"].startswith("localhost")]


class _Handler(BaseHTTPRequestHandler):
    server: _Site

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, self.headers))
        body, kind = b"nothing", "text/plain"
        if self.path == "/":
            body, kind = self.server.page.encode(), "text/html"
        elif self.path == "/c.png":
            body, kind = self.server.gallery.png("ab12"), "image/png"
        self.send_response(307 if self.path == "/moved" else 200)
        self.send_header("Location", self.server.moved)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def shop(site: CaptchaSite) -> Iterator[_Site]:
    running = _Site(site.gallery)
    yield running
    running.shutdown()
    running.server_close()


async def crawl(shop: _Site, api: Any, **settings: Any) -> Any:
    request = Request(f"{shop.url}/", headers={"X-Api-Key": "key", "Authorization": "Basic x"})
    rule = {"image": "#c", "input": "[name=code]"}
    return await run_crawl(
        [request],
        {
            "ACECAPTCHA_API_BASE_URL": api.url,
            "ACECAPTCHA_RULES": {"127.0.0.1": rule},
            "RETRY_ENABLED": False,
            **settings,
        },
    )


@ensureDeferred
async def test_a_form_is_not_sent_to_another_site_and_nothing_is_paid(
    shop: _Site, api: Any
) -> None:
    shop.page = f"<form method=post action={shop.other}/pay><img id=c src=/c.png><input name=code>"
    crawled = await crawl(shop, api)
    assert isinstance(crawled.error, CaptchaFormError)
    assert "\"hosts\": ['localhost']" in str(crawled.error)
    assert [path for _, path, _ in shop.seen] == ["/"]
    assert api.calls == []


@ensureDeferred
async def test_a_forms_body_is_not_redirected_to_another_site(shop: _Site, api: Any) -> None:
    shop.page = "<form method=post action=/moved><img id=c src=/c.png><input name=code>"
    shop.moved = f"{shop.other}/pay"
    crawled = await crawl(shop, api)
    assert isinstance(crawled.error, CaptchaFormError)
    assert shop.at_other() == []


@ensureDeferred
async def test_an_image_elsewhere_gets_what_a_browser_sends(shop: _Site, api: Any) -> None:
    action = f"{shop.other}/pay"
    shop.page = (
        f"<form method=post action={action}><img id=c src={shop.other}/c.png><input name=code>"
    )
    rules = {"127.0.0.1": {"image": "#c", "input": "[name=code]", "hosts": ["localhost"]}}
    headers = {"X-Defaults": "1", "Accept-Language": "de"}
    await crawl(shop, api, ACECAPTCHA_RULES=rules, DEFAULT_REQUEST_HEADERS=headers)
    elsewhere = shop.at_other()
    assert [path for _, path, _ in elsewhere][:2] == ["/c.png", "/pay"]
    for _, _, sent in elsewhere:
        assert sent["Accept-Language"] == "de"
        assert sent["Referer"] == f"{shop.url}/"
        assert not {"X-Api-Key", "Authorization", "X-Defaults", "Cookie"} & set(sent.keys())


@ensureDeferred
async def test_no_referer_where_scrapy_sends_none(shop: _Site, api: Any) -> None:
    shop.page = "<form method=post action=/pay><img id=c src=/c.png><input name=code>"
    await crawl(shop, api, REFERER_ENABLED=False)
    assert len(shop.seen) > 2
    assert not any("Referer" in sent for _, _, sent in shop.seen)


@ensureDeferred
async def test_a_proxys_page_cannot_reach_this_machine(shop: _Site, api: Any) -> None:
    """A page of another host, as a proxy serves it, with an image on the loopback address."""

    class Elsewhere:
        def process_request(self, request: Request) -> Any:
            from scrapy.http import HtmlResponse

            if request.url != "http://shop.example/":
                return None
            body = f"<form><img id=c src={shop.url}/c.png><input name=code></form>"
            return HtmlResponse(request.url, body=body.encode(), encoding="utf-8")

    crawled = await run_crawl(
        ["http://shop.example/"],
        {
            "ACECAPTCHA_API_BASE_URL": api.url,
            "ACECAPTCHA_RULES": {"shop.example": {"image": "#c"}},
            "DOWNLOADER_MIDDLEWARES": {Elsewhere: 900},
            "RETRY_ENABLED": False,
        },
    )
    assert isinstance(crawled.error, CaptchaImageError)
    assert "private network" in str(crawled.error)
    assert shop.seen == []
