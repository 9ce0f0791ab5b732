"""The sites that the example crawls: ``python -m example_project.site``.

The register of companies shows its list to everybody, but a record only to a visitor who has read
a captcha; one captcha opens a number of records. The county court's search wants one per query. The
office of building permits has a JSON API, as single-page applications do. The tender portal draws
its captcha on a canvas and sends the answer by fetch(): it needs a browser.
As on most real sites, each visitor owes one answer: a new image replaces it, an attempt uses it up.
"""

from __future__ import annotations

import base64
import contextlib
import os
import secrets
import threading
from collections import Counter
from dataclasses import asdict
from io import BytesIO

from captcha.image import ImageCaptcha
from flask import Flask, Response, abort, g, jsonify, render_template, request, send_file
from werkzeug.wrappers import Response as AnyResponse

from example_project.data import CASES, COMPANIES, TENDERS
from scrapy_acecaptcha.recognition.sandbox import LocalServer

PAGE_SIZE = 10
RECORDS_PER_CAPTCHA = 25
DIGITS = 4


class CaptchaDesk:
    """Knows visitors by a cookie, draws their captchas and checks their answers."""

    def __init__(self, app: Flask, cookie: str) -> None:
        self._cookie = cookie
        self._answers: dict[str, str] = {}
        self._painter = ImageCaptcha(width=160, height=60)
        app.before_request(self._meet_visitor)
        app.after_request(self._remind_visitor)
        app.add_url_rule("/captcha.png", view_func=self.image)

    def image(self) -> Response:
        """Draw a new captcha for the visitor; the one before is void."""
        answer = "".join(secrets.choice("0123456789") for _ in range(DIGITS))
        self._answers[g.visitor] = answer
        picture = send_file(BytesIO(self._painter.generate(answer).getvalue()), "image/png")
        picture.headers["Cache-Control"] = "no-store"
        return picture

    def passes(self, answer: str) -> bool:
        """Check the visitor's answer, and forget what it should have been."""
        return self._answers.pop(g.visitor, None) == answer.strip()

    def _meet_visitor(self) -> None:
        g.visitor = request.cookies.get(self._cookie) or secrets.token_hex(16)

    def _remind_visitor(self, response: AnyResponse) -> AnyResponse:
        if response.mimetype == "text/html" and self._cookie not in request.cookies:
            response.set_cookie(self._cookie, g.visitor, httponly=True, samesite="Lax")
        return response


class Passes:
    """How many records each visitor may still see."""

    def __init__(self) -> None:
        self._left: Counter[str] = Counter()
        self._lock = threading.Lock()

    def grant(self, visitor: str) -> None:
        with self._lock:
            self._left[visitor] = RECORDS_PER_CAPTCHA

    def use(self, visitor: str) -> bool:
        with self._lock:
            if not self._left[visitor]:
                return False
            self._left[visitor] -= 1
            return True


def create_register() -> Flask:
    """Make the register of companies: free listing pages, records behind a captcha."""
    app = Flask(__name__)
    desk = CaptchaDesk(app, "register_visitor")
    passes = Passes()
    companies = {company.number: company for company in COMPANIES}

    @app.get("/")
    @app.get("/records/")
    def listing() -> str:
        pages = range(1, len(COMPANIES) // PAGE_SIZE + 1)
        page = request.args.get("page", 1, int)
        if page not in pages:
            abort(404)
        shown = COMPANIES[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
        return render_template("listing.html", companies=shown, page=page, pages=pages)

    @app.route("/records/<number>", methods=["GET", "POST"])
    def record(number: str) -> str | tuple[str, int]:
        if number not in companies:
            abort(404)
        wrong = False
        if request.method == "POST":
            wrong = not desk.passes(request.form.get("code", ""))
            if not wrong:
                passes.grant(g.visitor)
        if wrong or not passes.use(g.visitor):
            return render_template("check.html", wrong=wrong, records=RECORDS_PER_CAPTCHA), 403
        return render_template("record.html", company=companies[number])

    app.add_url_rule("/robots.txt", view_func=robots)
    return app


def create_court() -> Flask:
    """Make the court's search for proceedings against a company: a captcha for each query."""
    app = Flask(__name__)
    desk = CaptchaDesk(app, "court_visitor")

    @app.get("/")
    @app.get("/search")
    def form() -> str:
        return render_template("search.html", company="", wrong=False)

    @app.post("/search")
    def search() -> str:
        company = request.form.get("company", "").strip()
        if not desk.passes(request.form.get("verification", "")):
            return render_template("search.html", company=company, wrong=True)
        return render_template("result.html", company=company, cases=CASES.get(company))

    app.add_url_rule("/robots.txt", view_func=robots)
    return app


def create_tenders() -> Flask:
    """Make the tender portal, where a script draws the captcha and sends the answer."""
    app = Flask(__name__)
    desk = CaptchaDesk(app, "tenders_visitor")

    @app.get("/")
    def page() -> str:
        return render_template("tenders.html")

    @app.post("/tenders")
    def tenders() -> Response | tuple[Response, int]:
        if not desk.passes(request.form.get("code", "")):
            return jsonify(error="wrong code"), 403
        return jsonify([asdict(tender) for tender in TENDERS])

    app.add_url_rule("/robots.txt", view_func=robots)
    return app


def create_permits() -> Flask:
    """Make the office of building permits: a JSON API that wants a captcha for each query."""
    app = Flask(__name__)
    painter = ImageCaptcha(width=160, height=60)
    answers: dict[str, str] = {}

    @app.get("/api/captcha")
    def captcha() -> Response:
        number = secrets.token_hex(8)
        answers[number] = "".join(secrets.choice("0123456789") for _ in range(DIGITS))
        image = base64.b64encode(painter.generate(answers[number]).getvalue()).decode()
        return jsonify(id=number, image=f"data:image/png;base64,{image}")

    @app.post("/api/search")
    def search() -> Response | tuple[Response, int]:
        asked = request.get_json()
        right = answers.pop(asked["captcha"], None)
        if right is None or right != asked["answer"].strip():
            return jsonify(error="wrong answer"), 403
        found = [c for c in COMPANIES if c.name == asked["company"]]
        return jsonify(company=asked["company"], permits=len(CASES.get(asked["company"], found)))

    app.add_url_rule("/robots.txt", view_func=robots)
    return app


def robots() -> Response:
    return Response("User-agent: *\nAllow: /\n", mimetype="text/plain")


SITES = {
    "register": create_register,
    "court": create_court,
    "permits": create_permits,
    "tenders": create_tenders,
}


def main() -> None:
    with contextlib.ExitStack() as stack:
        for number, (name, create) in enumerate(SITES.items()):
            port = int(os.environ.get(f"EXAMPLE_{name.upper()}_PORT", 8000 + number))
            server = stack.enter_context(LocalServer(create(), port))
            print(f"{name}: {server.url}/")
        print("Ctrl-C stops them.", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
