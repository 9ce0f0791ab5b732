"""What all corners of the site share: sessions, challenges, counters, the wall and its records."""

from __future__ import annotations

import math
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlencode

from flask import Response, make_response, redirect, request
from markupsafe import escape

if TYPE_CHECKING:
    from .app import CaptchaSite


@dataclass(eq=False)
class Session:
    """What the server remembers of a visitor: above all one expected answer, never two."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    expected: str | None = None
    replaced: set[str] = field(default_factory=set)  # right once, now worth nothing
    pages: float = 0  # how many more records it may see
    token: str = ""  # the one anti-forgery token that is valid now
    tokens: set[str] = field(default_factory=set)  # and all that were


class Scenario:
    """One captcha-protected corner of the site, under /<name>/.

    A path's first segment names the method that answers it: /redirect/check?next=... is
    `do_check`. Extensions don't matter, so pages can look like PHP, ASP or JSP.
    Subclasses say what stands in for a record (`wall`) and how the form looks (`form`).

    Counters in `stats`: `passes` (records served), `walls` (forms shown), `images`, and for
    submissions `solved`, `wrong`, `spoiled` (right for an image that was replaced meanwhile)
    and `improper` (right, but the form was not sent as a browser would send it).
    """

    name: ClassVar[str]
    cookie: ClassVar[str] = "sid"
    status: ClassVar[int] = 200
    field: ClassVar[str] = "code"
    rule: ClassVar[dict[str, Any]] = {"image": "img#captcha", "input": "input[name=code]"}
    failure = "The code you entered is not correct."

    def __init__(self, site: CaptchaSite) -> None:
        self.site = site
        self.sessions: dict[str, Session] = {}
        self.stats: Counter[str] = Counter()

    def reset(self) -> None:
        with self.site.lock:
            self.sessions.clear()
            self.stats.clear()

    # Requests

    def respond(self, path: str) -> Response:
        session = self.session()
        answer = self.route(session, path)
        response = make_response(answer if answer is not None else ("Not found", 404))
        if request.cookies.get(self.cookie) != session.id:
            response.set_cookie(self.cookie, session.id, path="/", httponly=True)
        response.headers["Cache-Control"] = "no-store"
        return response

    def session(self) -> Session:
        """The visitor's session. Like PHP's, it starts with the first request without a cookie."""
        with self.site.lock:
            known = self.sessions.get(request.cookies.get(self.cookie, ""))
            session = known or Session()
            self.sessions[session.id] = session
            return session

    def route(self, session: Session, path: str) -> Any:
        head, *rest = path.split("/")
        handler = getattr(self, "do_" + (head.partition(".")[0] or "listing"), None)
        return handler(session, *rest) if handler else None

    # Pages

    def do_listing(self, session: Session) -> str:
        """Links to ?n= records; the other arguments go on to each record's URL."""
        arguments = {key: value for key, value in request.args.items() if key != "n"}
        query = f"?{urlencode(arguments)}" if arguments else ""
        links = "".join(
            f'<li><a class="record" href="/{self.name}/record/{i}{query}">Record {i}</a></li>\n'
            for i in range(int(request.args.get("n", 40)))
        )
        return f"<!DOCTYPE html><title>{self.name}</title><h1>Records</h1>\n<ul>\n{links}</ul>"

    def do_record(self, session: Session, i: str) -> Any:
        return self.record(i) if self.admit(session) else self.wall(session)

    def do_captcha(self, session: Session) -> Response:
        return self.image(session)

    def record(self, i: str) -> Any:
        self.count("passes")
        return (
            f"<!DOCTYPE html><html><head><title>Record {escape(i)}</title></head><body>"
            f'<h1 class="record">Record {escape(i)}</h1><p>Everything we know about it.</p>'
            "</body></html>"
        )

    def wall(self, session: Session, message: str = "") -> Any:
        """What a visitor gets who has not answered yet."""
        self.count("walls")
        return self.form(session, message), self.status

    def form(self, session: Session, message: str) -> str:
        """The whole page with the captcha."""
        raise NotImplementedError

    # Challenges

    def challenge(self, session: Session) -> str:
        """A new text for the session; the answer to the image before is spoiled by it."""
        text = self.site.random_text()
        with self.site.lock:
            if session.expected:
                session.replaced.add(session.expected)
            session.expected = text
        self.count("images")
        return text

    def image(self, session: Session) -> Response:
        kind = self.site.image_format
        file = self.site.gallery.png(self.challenge(session), kind)
        return Response(file, mimetype=f"image/{kind.lower()}")

    def check(self, session: Session) -> bool:
        """Judge the submission that `request` is, and count it. Every answer is single use."""
        answer = request.values.get(self.field, "").strip()
        proper = self.proper(session)
        with self.site.lock:
            expected, session.expected = session.expected, None
            stale = self.sent_token() in session.tokens - {session.token}
            if not answer or answer not in {expected, *session.replaced}:
                verdict = "wrong"
            elif stale or answer != expected:
                verdict = "spoiled"
            else:
                verdict = "solved" if proper else "improper"
            if verdict == "solved":
                session.pages = self.pages()
            elif expected:
                session.replaced.add(expected)
            self.stats[verdict] += 1
        return verdict == "solved"

    def sent_token(self) -> str:
        """The anti-forgery token of the form; an older one than the newest is stale."""
        return ""

    def proper(self, session: Session) -> bool:
        """Whether the form came as a browser would send it."""
        return True

    def pages(self) -> float:
        """How many records one right answer is good for."""
        return math.inf

    def admit(self, session: Session) -> bool:
        with self.site.lock:
            if session.pages <= 0:
                return False
            session.pages -= 1
            return True

    # Tokens

    def new_token(self, session: Session) -> str:
        with self.site.lock:
            session.token = uuid.uuid4().hex
            session.tokens.add(session.token)
            return session.token

    def count(self, event: str) -> None:
        with self.site.lock:
            self.stats[event] += 1


class InPlace(Scenario):
    """The form stands where the record should be, and posts to the record's own URL."""

    def do_record(self, session: Session, i: str) -> Any:
        if request.method != "POST":
            return super().do_record(session, i)
        return self.accepted(session, i) if self.check(session) else self.refused(session)

    def accepted(self, session: Session, i: str) -> Any:
        self.admit(session)
        return self.record(i)

    def refused(self, session: Session) -> Any:
        return self.wall(session, self.failure)


class CheckPage(Scenario):
    """The record leads elsewhere, to a page with the form, and that page back to the record."""

    page = "check"

    def wall(self, session: Session, message: str = "") -> Any:
        return redirect(self.check_url())

    def check_url(self) -> str:
        return f"/{self.name}/{self.page}?next={quote(here(), safe='/')}"

    def do_check(self, session: Session) -> Any:
        if request.method != "POST":
            return super().wall(session)
        return self.accepted(session) if self.check(session) else self.refused(session)

    def accepted(self, session: Session) -> Any:
        return redirect(request.args.get("next", f"/{self.name}/"))

    def refused(self, session: Session) -> Any:
        return super().wall(session, self.failure)


def here() -> str:
    """The URL of this request, without scheme and host."""
    return request.full_path.rstrip("?")
