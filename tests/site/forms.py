"""What a form demands: tokens, encodings, buttons, controls that stand elsewhere, queries."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote_plus

from flask import Response, make_response, request
from markupsafe import escape

from .scenario import InPlace, Scenario, Session


class Hidden(InPlace):
    """ASP.NET: hidden fields of all sorts, one of them good for the newest page only."""

    name = "hidden"
    cookie = "ASPSESSIONIDQATRBQTC"
    field = "ctl00$Main$tbCode"
    rule: ClassVar = {"image": "#ctl00_Main_captcha", "input": "#ctl00_Main_tbCode"}

    def form(self, session: Session, message: str) -> str:
        token = self.new_token(session)
        return f"""<!DOCTYPE html><html><head><title>Registry</title></head><body>
<form method="post" action="./{request.path.rpartition("/")[2]}" id="aspnetForm">
<div class="aspNetHidden">
<input type="hidden" name="__EVENTTARGET" id="__EVENTTARGET" value="" />
<input type="hidden" name="__VIEWSTATE" id="__VIEWSTATE" value="/wEPDwUK+{token}==" />
<input type="hidden" name="__EVENTVALIDATION" value="&quot;a&amp;b=c&quot;" />
</div><table><tr><td><span id="ctl00_Main_lbl">{message}</span></td></tr>
<tr><td><img id="ctl00_Main_captcha" src="../captcha.ashx?id={token[:6]}" alt="" /></td>
<td><input name="ctl00$Main$tbCode" type="text" id="ctl00_Main_tbCode" /></td></tr></table>
<input type="submit" name="ctl00$Main$btn" value="Search &gt;&gt;" />
<input type="submit" name="ctl00$Main$reset" value="Clear" />
<input type="hidden" name="same" value="1" /><input type="hidden" name="same" value="2" />
</form></body></html>"""

    def sent_token(self) -> str:
        return request.form.get("__VIEWSTATE", "").removeprefix("/wEPDwUK+").removesuffix("==")

    def proper(self, session: Session) -> bool:
        form = request.form
        return (
            self.sent_token() == session.token
            and form.get("__EVENTTARGET") == ""
            and form.get("__EVENTVALIDATION") == '"a&b=c"'
            and form.getlist("same") == ["1", "2"]
            and form.get("ctl00$Main$btn") == "Search >>"
            and "ctl00$Main$reset" not in form
        )


class Gbk(InPlace):
    """A page in GBK; a text field of it must come back in the very same bytes."""

    name = "gbk"
    cookie = "JSESSIONID_GBK"
    field = "yzm"
    encoding = "gbk"
    title, keyword, label, button = "企业信用查询", "北京 & 上海", "验证码", "查询"
    failure = "验证码错误"
    rule: ClassVar = {"image": "img#yzmimg", "input": "input[name=yzm]"}

    def wall(self, session: Session, message: str = "") -> Response:
        self.count("walls")
        page = self.form(session, message).encode(self.encoding)
        return Response(page, content_type=f"text/html; charset={self.encoding}")

    def form(self, session: Session, message: str) -> str:
        return f"""<html><head><title>{self.title}</title>
<meta http-equiv=Content-Type content="text/html; charset={self.encoding}"></head><body>
<form name=form1 action="" method=post><table width=600 align=center><tr>
<td><input type=text name=keyword value="{escape(self.keyword)}"></td>
<td>{self.label}: <input type=text name=yzm size=4>
<img id=yzmimg src="/{self.name}/captcha.jsp"></td>
<td><input type=submit name=btn value="{self.button}"> <font color=red>{message}</font></td>
</tr></table></form></body></html>"""

    def proper(self, session: Session) -> bool:
        pairs = request.get_data().decode("ascii", "replace").split("&")
        return {
            f"keyword={quote_plus(self.keyword, encoding=self.encoding)}",
            f"btn={quote_plus(self.button, encoding=self.encoding)}",
        } <= {_upper_escapes(pair) for pair in pairs}


class Cp1251(Gbk):
    name = "cp1251"
    cookie = "JSESSIONID_CP1251"
    encoding = "windows-1251"
    title, keyword, label, button = "Картотека дел", "Иванов и Ёлкин", "Код", "Найти"
    failure = "Код введён неверно"


class Multipart(InPlace):
    """An upload form; the file is optional."""

    name = "multipart"
    cookie = "MULTISESS"
    rule: ClassVar = {"image": "#cap", "input": "[name=code]"}

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html><html><body><p class="err">{message}</p>
<form action="" method="post" enctype="multipart/form-data">
<input type="hidden" name="MAX_FILE_SIZE" value="30000">
<textarea name="note">two
lines, the second with an é</textarea>
<select name="kind"><option value="a">A</option><option value="b" selected>B</option></select>
<input type="file" name="attachment">
<img id="cap" src="/multipart/captcha.php"><input type="text" name="code">
<button name="act" value="send">Send</button></form></body></html>"""

    def proper(self, session: Session) -> bool:
        form = request.form
        return (
            request.mimetype == "multipart/form-data"
            and form.get("MAX_FILE_SIZE") == "30000"
            and form.get("note", "").splitlines() == ["two", "lines, the second with an é"]
            and form.get("kind") == "b"
            and form.get("act") == "send"
        )


class ImageButton(InPlace):
    """Submitted by a graphical button, whose click coordinates the server wants to see."""

    name = "imagebutton"
    cookie = "imgbtn"
    rule: ClassVar = {"image": "img#captcha", "input": "input[name=code]"}

    def form(self, session: Session, message: str) -> str:
        return f"""<HTML><BODY><FORM NAME="s" ACTION="" METHOD="post">{message}
<IMG ID="captcha" SRC="/imagebutton/captcha.pl"><INPUT NAME="code">
<INPUT TYPE="image" NAME="go" SRC="/imagebutton/go.gif" ALT="Go"></FORM></BODY></HTML>"""

    def do_go(self, session: Session) -> Response:
        return Response(self.site.gallery.png("GO", "GIF"), mimetype="image/gif")

    def proper(self, session: Session) -> bool:
        form = request.form
        return form.get("go.x", "").isdigit() and form.get("go.y", "").isdigit()


class FormAttr(InPlace):
    """Controls outside the form, tied to it by form="id"; others of no concern to it."""

    name = "formattr"
    cookie = "formattr_sid"
    rule: ClassVar = {"image": "#captcha", "input": "input[name=code]"}

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html><html><body><form id="other"><input name="stray"></form>
<form id="check" method="post"><input type="hidden" name="inside" value="1"></form>
<section><img id="captcha" src="/formattr/captcha"> {message}
<input name="code" form="check"><input type="hidden" name="ref" value="r7" form="check">
<input name="locked" value="x" form="check" disabled>
<fieldset disabled><input name="frozen" value="x" form="check"></fieldset>
<input type="checkbox" name="unticked" value="x" form="check"><input name="loose" value="x">
<button form="check" name="do" value="ok">OK</button></section></body></html>"""

    def proper(self, session: Session) -> bool:
        sent = {key: value for key, value in request.form.items() if key != "code"}
        return sent == {"inside": "1", "ref": "r7", "do": "ok"}


class Query(Scenario):
    """A search with a captcha for every query; even the result page has the form again.

    /query/record/<i> is the search for <i>, /query/ without q= the listing.
    """

    name = "query"
    cookie = "query_sid"
    method = "post"
    failure = "Wrong code"
    rule: ClassVar = {
        "image": "img#captcha",
        "input": "input[name=code]",
        "success": "#result",
        "failure": ".error",
    }

    def do_listing(self, session: Session) -> Any:
        term = request.values.get("q")
        return self.search(session, term) if term is not None else super().do_listing(session)

    def do_record(self, session: Session, i: str) -> Any:
        return self.search(session, request.values.get("q", i))

    def search(self, session: Session, term: str) -> Any:
        if self.field not in request.values:
            return self.page(session, term)
        if self.check(session):
            return self.result(session, term)
        return self.page(session, term, f'<div class="error">{self.failure}</div>')

    def result(self, session: Session, term: str) -> Any:
        self.count("passes")
        found = f'<h1 class="record">Record {escape(term)}</h1>'
        return self.page(session, term, f'<div id="result">{found}</div>')

    def page(self, session: Session, term: str, top: str = "") -> str:
        self.count("walls")
        return f"""<!DOCTYPE html><html><head><title>Search</title></head><body>{top}
<form action="/{self.name}/" method="{self.method}">
<label>Name <input name="q" value="{escape(term)}"></label>
<img id="captcha" src="/{self.name}/captcha.png"><input name="code" placeholder="Captcha code">
<button>Search</button></form></body></html>"""


class QueryGet(Query):
    """The same by GET, and the result page has no form."""

    name = "queryget"
    cookie = "queryget_sid"
    method = "get"
    rule: ClassVar = {"image": "img#captcha", "input": "input[name=code]"}

    def result(self, session: Session, term: str) -> Any:
        return self.record(term)


class Ticket(QueryGet):
    """The same, but what is expected is tied to a ticket in the form and not to a cookie.

    Not among FORMS: it has no session in which an answer could be spoiled.
    """

    name = "ticket"
    rule: ClassVar = {**QueryGet.rule, "fields": {"exact": "yes"}}

    def session(self) -> Session:
        with self.site.lock:
            known = self.sessions.get(request.values.get("ticket", ""))
            session = known or Session()
            self.sessions[session.id] = session
            return session

    def respond(self, path: str) -> Response:
        response = make_response(self.route(self.session(), path) or ("Not found", 404))
        response.headers["Cache-Control"] = "no-store"
        return response

    def page(self, session: Session, term: str, top: str = "") -> str:
        page = super().page(session, term, top)
        ticket = f'<input type="hidden" name="ticket" value="{session.id}">'
        return page.replace("captcha.png", f"captcha.png?ticket={session.id}").replace(
            "<button>", f"{ticket}<button>"
        )


def _upper_escapes(pair: str) -> str:
    """The pair as quote_plus would have written it, whatever else was escaped and in what case."""
    name, _, value = pair.partition("=")
    ((_, plain),) = parse_qsl(f"x={value}", encoding="latin-1", keep_blank_values=True) or [
        ("", "")
    ]
    return f"{name}={quote_plus(plain, encoding='latin-1')}"


FORMS: list[type[Scenario]] = [
    Hidden,
    Gbk,
    Cp1251,
    Multipart,
    ImageButton,
    FormAttr,
    Query,
    QueryGet,
]
