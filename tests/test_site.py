"""The test site and the API stub, tried with a plain visitor before anything relies on them."""

from __future__ import annotations

import base64
import io
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode, urljoin

import pytest
import requests
import resvg_py
from parsel import Selector
from PIL import Image

from tests.site import HOSTILE_KINDS, RULES, CaptchaSite
from tests.site.drawing import Gallery
from tests.stub import HANG, RESET, ApiStub, Task

WALLS = [
    *(name for name in RULES if name not in ("nocaptcha", "hostile", "refreshes_on")),
    "datauri?ws=1",
    "background?css=block",
    "background?css=data",
    "svg?how=data",
    "svg?how=img&size=no",
    "otherport?form=1",
    "otherport?form=1&host=1",
]

# Scenarios that look at more than the answer, and the field that it goes into.
SENT_CARELESSLY = {
    "hidden": "ctl00$Main$tbCode",
    "gbk": "yzm",
    "cp1251": "yzm",
    "multipart": "code",
    "imagebutton": "code",
    "formattr": "code",
    "login": "captcha_1",
}


class HttpSession:
    """A browser of sorts: reads a page, fills in its form, sends it."""

    def __init__(self, site: CaptchaSite, wall: str) -> None:
        self.site = site
        self.name, _, self.query = wall.partition("?")
        self.rule: dict[str, Any] = RULES[self.name]
        self.http = requests.Session()

    def visit(self, i: int = 7) -> requests.Response:
        page = self.http.get(f"{self.site.url}/{self.name}/record/{i}?{self.query}")
        refresh = re.search(r'http-equiv="Refresh" content="0; URL=(.*?)"', page.text)
        return self.http.get(urljoin(page.url, refresh[1])) if refresh else page

    def read(self, page: requests.Response) -> str:
        """What the captcha says; its image is downloaded, as a browser would."""
        src = self.select(page, self.rule["image"]).attrib.get("src")
        svg = re.search("<svg.*?</svg>", page.text, re.DOTALL)
        script = re.search(r"""(?:url\(|image\.src = )["'](.*?)["']""", page.text)
        image = svg[0].encode() if svg else self.fetch(page, src or (script[1] if script else ""))
        if image.startswith(b"<svg"):
            image = bytes(resvg_py.svg_to_bytes(svg_string=image.decode()))
        answer = self.site.answers(image)
        assert answer
        return answer

    def fetch(self, page: requests.Response, src: str) -> bytes:
        if src.startswith("data:"):
            return base64.b64decode(src.partition(",")[2])
        return self.http.get(urljoin(page.url, src)).content

    def send(self, page: requests.Response, answer: str) -> requests.Response:
        field = self.select(page, self.rule["input"])
        form_id = field.attrib.get("form")
        form = field.xpath(f"//form[@id='{form_id}']" if form_id else "ancestor::form")
        values = dict(self.rule.get("fields", {}), **{field.attrib["name"]: answer})
        pairs = [(key, values.pop(key, value)) for key, value in _controls(form)]
        pairs += values.items()
        url = urljoin(page.url, form.attrib.get("action") or page.url)
        if form.attrib.get("method", "get").lower() == "get":
            return self.http.get(url, params=pairs)
        if form.attrib.get("enctype"):
            return self.http.post(url, files=[(key, (None, value)) for key, value in pairs])
        body = urlencode(pairs, encoding=page.encoding)
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        return self.http.post(url, data=body, headers=kind)

    def select(self, page: requests.Response, selector: str) -> Selector:
        root = Selector(page.text)
        return (root.xpath if selector.startswith("/") else root.css)(selector)[0]

    def count(self, event: str) -> int:
        return self.site.stats[self.name][event]


def _controls(form: Any) -> list[tuple[str, str]]:
    """What a browser sends of this form, its first submit button pressed."""
    tied = f" | //*[@form='{form.attrib['id']}']" if "id" in form.attrib else ""
    enabled = form.xpath(f".//*[@name]{tied}").xpath("self::*[not(ancestor-or-self::*[@disabled])]")
    pairs, pressed = [], False
    for control in enabled:
        tag, name = control.root.tag, control.attrib.get("name", "")
        kind = control.attrib.get("type", "submit" if tag == "button" else "text").lower()
        value = control.xpath(
            ".//option[@selected]/@value" if tag == "select" else "@value | self::textarea/text()"
        ).get("")
        if kind in ("checkbox", "file", "button"):
            continue
        if kind == "image" and "captcha" not in control.attrib["src"]:
            pairs += [(f"{name}.x", "3"), (f"{name}.y", "4")]
        elif kind != "submit" or not pressed:
            pressed = pressed or kind == "submit"
            pairs += [(name, value)] if kind != "image" else []
    return pairs


def _is_record(response: requests.Response) -> bool:
    return (
        '<h1 class="record">Record 7</h1>' in response.text
        or response.headers["Content-Type"] == "application/pdf"
    )


@pytest.fixture(scope="module")
def running_site():
    with CaptchaSite() as site:
        yield site


@pytest.fixture
def site(running_site):
    running_site.reset()
    return running_site


def test_right_answers_open_every_wall(site):
    for wall in WALLS:
        visitor = HttpSession(site, wall)
        page = visitor.visit()
        assert not _is_record(page), wall
        before = visitor.count("solved")
        after = visitor.send(page, visitor.read(page))
        counted = [visitor.count(event) for event in ("wrong", "spoiled", "improper")]
        assert (visitor.count("solved") - before, counted) == (1, [0, 0, 0]), wall
        assert _is_record(after) or _is_record(visitor.visit()), wall


def test_no_wall_takes_a_wrong_a_used_or_a_replaced_answer(site):
    for wall in WALLS:
        site.reset()
        wrong = HttpSession(site, wall)
        page = wrong.visit()
        wrong.read(page)
        assert not _is_record(wrong.send(page, "BBBBB")), wall
        assert not _is_record(wrong.visit()), wall
        assert (wrong.count("solved"), wrong.count("wrong")) == (0, 1), wall

        used = HttpSession(site, wall)
        page = used.visit()
        answer = used.read(page)
        used.send(page, answer)
        used.send(page, answer)
        assert (used.count("solved"), used.count("wrong")) == (1, 2), wall

        replaced = HttpSession(site, wall)
        page = replaced.visit()
        answer = replaced.read(page)
        replaced.read(replaced.visit())
        assert not _is_record(replaced.send(page, answer)), wall
        assert (replaced.count("solved"), replaced.count("spoiled")) == (1, 1), wall


def test_status_of_the_wall(site):
    for name, status in {"inplace": 200, "forbidden": 403, "unavailable": 503}.items():
        assert HttpSession(site, name).visit().status_code == status


def test_the_other_walls_lead_elsewhere(site):
    redirect = requests.get(f"{site.url}/redirect/record/1?a=1", allow_redirects=False)
    assert redirect.headers["Location"] == "/redirect/check?next=/redirect/record/1%3Fa%3D1"
    silent = HttpSession(site, "through_silent")
    assert "<img" not in silent.send(silent.visit(), "BBBBB").text
    assert "<img" in HttpSession(site, "metarefresh").visit().text


def test_a_posted_search_must_be_posted_again(site):
    visitor = HttpSession(site, "post")
    search = f"{site.url}/post/search", {"term": "7"}
    page = visitor.http.post(*search)
    assert page.url.startswith(f"{site.url}/post/check")
    assert "You are through" in visitor.send(page, visitor.read(page)).text
    assert _is_record(visitor.http.post(*search))


def test_every_k(site):
    site.every_k = 2
    visitor = HttpSession(site, "every_k")
    page = visitor.visit()
    assert _is_record(visitor.send(page, visitor.read(page)))
    assert [_is_record(visitor.visit()) for _ in range(3)] == [True, False, False]


def test_what_is_sent_carelessly_is_improper(site):
    for name, field in SENT_CARELESSLY.items():
        visitor = HttpSession(site, name)
        page = visitor.visit()
        visitor.http.post(page.url, {field: visitor.read(page), "locked": "x"})
        assert visitor.count("improper") == 1, name


def test_listing_and_plain_pages(site):
    listing = Selector(requests.get(f"{site.url}/svg/?n=3&how=img").text)
    assert listing.css("a.record::attr(href)").getall() == [
        f"/svg/record/{i}?how=img" for i in range(3)
    ]
    assert _is_record(requests.get(f"{site.url}/nocaptcha/record/7"))
    assert requests.get(f"{site.url}/nowhere/record/7").status_code == 404
    site.robots = "User-agent: *\nDisallow: /"
    assert requests.get(f"{site.url}/robots.txt").text == site.robots
    assert [seen.path for seen in site.requests][-1] == "/robots.txt"


def test_hostile_pages_come_and_end(site):
    for kind in HOSTILE_KINDS:
        page = requests.get(f"{site.url}/hostile/{kind}")
        assert page.status_code == 200
        assert b"captcha" in page.content
        assert len(page.content) > 50_000_000 or kind != "huge-page"


def test_hostile_images(site):
    assert len(requests.get(f"{site.url}/hostile/image/big").content) > 9_000_000
    with pytest.raises(requests.TooManyRedirects):
        requests.get(f"{site.url}/hostile/image/loop")


def test_images_of_every_format_are_known(site):
    for kind in ("PNG", "GIF", "JPEG", "WEBP", "BMP"):
        site.image_format = kind
        image = requests.get(f"{site.url}/inplace/captcha.php")
        assert image.headers["Content-Type"] == f"image/{kind.lower()}"
        assert Image.open(io.BytesIO(image.content)).format == kind
        assert site.answers(image.content)


def test_a_screenshot_is_known_too():
    gallery = Gallery()
    images = [Image.open(io.BytesIO(gallery.png(text))) for text in ("ACDEF", "XYW34")]
    shot, file = Image.new("RGBA", (300, 90), "white"), io.BytesIO()
    shot.paste(images[0], (21, 17))
    shot.save(file, "PNG")
    assert gallery.answer(file.getvalue()) == "ACDEF"
    assert gallery.answer(b"<html>") is None


def test_many_visitors_at_a_time(site):
    def solve(_: int) -> bool:
        visitor = HttpSession(site, "hidden")
        page = visitor.visit()
        return _is_record(visitor.send(page, visitor.read(page)))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(solve, range(64)))
    assert site.stats["hidden"]["solved"] == 64


def _recognize(api: ApiStub, image: bytes, timeout: float = 10) -> requests.Response:
    body = {"image": base64.b64encode(image).decode()}
    return requests.post(f"{api.url}/captcha/recognition/image2text", json=body, timeout=timeout)


def test_the_stub_follows_its_script(site):
    image = site.gallery.png("ACDEF")
    limit = (429, {"error": {"code": "too_many_requests"}}, {"Retry-After": "1"})
    with ApiStub(site.answers, ["X", limit, RESET, lambda _: "Y"]) as api:
        assert _recognize(api, image).json()["text"] == "X"
        assert _recognize(api, image).headers["Retry-After"] == "1"
        with pytest.raises(requests.ConnectionError):
            _recognize(api, image)
        assert [_recognize(api, image).json()["text"] for _ in range(2)] == ["Y", "ACDEF"]
        assert _recognize(api, b"no image").status_code == 400
    assert [call.image for call in api.calls] == [image] * 5 + [b"no image"]
    assert api.charged == 3


def test_the_stub_answers_later(site):
    image = site.gallery.png("ACDEF")
    with ApiStub(site.answers, [Task(processing=1)]) as api:
        task = _recognize(api, image)
        assert task.status_code == 201
        replies = [requests.post(f"{api.url}/captcha/tasks", json=task.json()) for _ in range(2)]
        assert [reply.json()["status"] for reply in replies] == ["processing", "ready"]
        assert replies[1].json()["text"] == "ACDEF"


def test_the_stub_errs_as_often_as_it_should(site):
    images = {text: site.gallery.png(text) for text in (site.random_text() for _ in range(100))}
    runs = []
    for _ in range(2):
        with ApiStub(site.answers, wrong=0.15, seed=1) as api:
            runs.append([_recognize(api, image).json()["text"] for image in images.values()])
    wrong = [got for got, text in zip(runs[0], images, strict=True) if got != text]
    assert runs[0] == runs[1]
    assert 5 <= len(wrong) <= 25
    assert {len(text) for text in wrong} == {5}


def test_the_stub_holds_calls_and_ends_while_one_hangs(site):
    image = site.gallery.png("ACDEF")
    with ThreadPoolExecutor(4) as pool, ApiStub(site.answers) as api:
        api.gate.clear()
        held = [pool.submit(_recognize, api, image) for _ in range(3)]
        api.wait_for(3)
        assert not any(call.done() for call in held)
        assert api.max_parallel == 3
        api.gate.set()
        assert all(call.result().ok for call in held)
        api.script.append(HANG)
        hung = threading.Thread(target=_recognize_in_vain, args=(api, image))
        hung.start()
        api.wait_for(4)
    hung.join(5)
    assert not hung.is_alive()


def _recognize_in_vain(api: ApiStub, image: bytes) -> None:
    with pytest.raises(requests.ConnectionError):
        _recognize(api, image)
