"""Walls: what stands in for the record, and where a right or a wrong answer leads."""

from __future__ import annotations

from typing import Any, ClassVar
from urllib.parse import quote

from flask import Response, redirect, request
from markupsafe import escape

from .scenario import CheckPage, InPlace, Scenario, Session, here


class Here(InPlace):
    """Answered in place, in the looks of an old PHP board."""

    name = "inplace"
    cookie = "PHPSESSID"
    rule: ClassVar = {"image": "img#captcha", "input": "input[name=code]"}

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Security check</title></head>
<body>
<img src="/static/logo.png" alt="Logo" width="120" height="40">
<h2>Please verify that you are human</h2>
<p class="error">{message}</p>
<form method="post" action="">
  <table>
    <tr><td>Security code:</td>
        <td><img id="captcha" src="/inplace/captcha.php" alt="code"></td></tr>
    <tr><td><label for="code">Type the code</label></td>
        <td><input type="text" name="code" id="code" size="8" maxlength="8"></td></tr>
    <tr><td></td><td><input type="submit" name="go" value="Continue"></td></tr>
  </table>
</form>
</body></html>"""


class Forbidden(InPlace):
    """A firewall's block page: 403, everything in upper case as some appliances write it."""

    name = "forbidden"
    cookie = "waf_id"
    status = 403
    field = "answer"
    rule: ClassVar = {"image": ".challenge img", "input": "#answer"}

    def form(self, session: Session, message: str) -> str:
        return f"""<HTML><HEAD><TITLE>403 Access limited</TITLE></HEAD>
<BODY BGCOLOR=#FFFFFF><H1>Access limited</H1>{message}
<P>Too many requests from your network. Enter the characters to go on.
<FORM METHOD=POST><DIV CLASS=challenge><IMG SRC=captcha.png?{session.id[:6]} BORDER=0></DIV>
<INPUT TYPE=text NAME=answer ID=answer AUTOCOMPLETE=off><BUTTON TYPE=submit>Unblock</BUTTON>
</FORM></BODY></HTML>"""

    def do_record(self, session: Session, i: str) -> Any:
        # The image's relative URL makes /forbidden/record/captcha.png of it.
        return self.image(session) if i == "captcha.png" else super().do_record(session, i)


class Unavailable(InPlace):
    """A shop under load: 503 with a form, in Bootstrap style."""

    name = "unavailable"
    cookie = "session-id"
    status = 503
    field = "field-keywords"
    rule: ClassVar = {
        "image": "//form//img[contains(@src, 'captcha')]",
        "input": "//input[@name='field-keywords']",
    }

    def form(self, session: Session, message: str) -> str:
        return f"""<!doctype html><html lang='en'><head><title>Robot Check</title></head><body>
<div class='container'><div class='row'><h4>Enter the characters you see below</h4>
<p class='a-last'>Sorry, we just need to make sure you're not a robot. {message}</p>
<form method='post' action='{escape(here())}' name=''>
<input type=hidden name='amzn-r' value='&#047;'>
<div class='a-row a-text-center'><img src='/unavailable/captcha/Captcha_1.jpg?x=1&amp;y=2'></div>
<input autocomplete='off' spellcheck='false' id='captchacharacters' name='field-keywords'
 class='form-control' placeholder='Type characters' type='text'>
<button type='submit' class='btn btn-primary'>Continue shopping</button>
</form></div></div></body></html>"""

    def do_captcha(self, session: Session, *_: str) -> Response:
        return self.image(session)

    def proper(self, session: Session) -> bool:
        return request.form.get("amzn-r") == "/"


class Redirect(CheckPage):
    """302 to a check page, which leads back."""

    name = "redirect"
    cookie = "JSESSIONID"
    field = "verifyCode"
    rule: ClassVar = {"image": "#verifyImg", "input": "#verifyCode"}

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Transitional//EN"
 "http://www.w3.org/TR/xhtml1/DTD/xhtml1-transitional.dtd">
<html xmlns="http://www.w3.org/1999/xhtml"><head><title>Verification</title></head><body>
<span class="msg">{message}</span>
<form id="verifyForm" action="{escape(here())}" method="post">
  <p><img id="verifyImg" src="/redirect/captcha.do" onclick="this.src='captcha.do?1'" />
  <input type="text" id="verifyCode" name="verifyCode" /></p>
  <p><input type="button" value="Back" onclick="history.back()" />
  <input type="submit" value="OK" /></p>
</form></body></html>"""


class RedirectAgain(Redirect):
    """And again after ten pages (site.every_k), the answered one not included."""

    name = "redirect_again"
    cookie = "redirect_again_sid"

    def form(self, session: Session, message: str) -> str:
        return super().form(session, message).replace("/redirect/", f"/{self.name}/")

    def pages(self) -> float:
        return self.site.every_k


class Through(CheckPage):
    """302 to a check page that ends in a thank-you without a way back."""

    name = "through"
    cookie = "CFID"
    field = "txtCaptcha"
    rule: ClassVar = {"image": "img[alt=Captcha]", "input": "input[name=txtCaptcha]"}

    def form(self, session: Session, message: str) -> str:
        return f"""<html><head><title>Are you human?</title></head><body>
<center><font color="red">{message}</font>
<form name="frm" method="post" action="/{self.name}/check">
<table border="0" cellpadding="2"><tr><td colspan="2">
<img src="/{self.name}/captcha.cfm?t={session.id[:8]}" alt="Captcha" align="middle"></td></tr>
<tr><td>Code shown above</td><td><input name="txtCaptcha" size="10"></td></tr>
<tr><td colspan="2"><input type="submit" value="Send"></td></tr>
</table></form></center></body></html>"""

    def accepted(self, session: Session) -> str:
        return "<html><body><h3>Thank you</h3><p>You are through. You may go on.</p></body></html>"


class ThroughSilent(Through):
    """And on a wrong answer there is no new form either."""

    name = "through_silent"
    cookie = "CFTOKEN"

    def refused(self, session: Session) -> str:
        return "<html><body><h3>Error</h3><p>Wrong code, go back and try again.</p></body></html>"


class OneCheck(Through):
    """All records lead to one and the same address, again after ten pages."""

    name = "one_check"
    cookie = "one_check_sid"

    def check_url(self) -> str:
        return f"/{self.name}/check"

    def pages(self) -> float:
        return self.site.every_k


class Refreshing(Here):
    """The captcha's page asks browsers to load it anew after a minute, and says 503."""

    name = "refreshing"
    cookie = "refreshing_sid"
    status = 503

    def form(self, session: Session, message: str) -> str:
        page = super().form(session, message).replace("/inplace/", f"/{self.name}/")
        return page.replace("<head>", '<head><meta http-equiv="refresh" content="60">')


class MetaRefresh(CheckPage):
    """The record is a page that refreshes to the check page at once."""

    name = "metarefresh"
    cookie = "mr_session"
    rule: ClassVar = {"image": "form img", "input": "input[name=code]"}

    def wall(self, session: Session, message: str = "") -> str:
        url = escape(self.check_url())
        return f"""<html><head><meta http-equiv="Refresh" content="0; URL={url}"></head>
<body>You are being redirected...</body></html>"""

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html><html><head><title>One moment</title></head><body>
<form action="{escape(here())}" method="POST"><fieldset><legend>Check</legend>
<div>{message}</div><img src="/metarefresh/captcha?{session.id[:5]}">
<label>Letters <input name="code"></label><button>Go on</button></fieldset></form></body></html>"""


class RedirectBack(InPlace):
    """Post, redirect, get: either answer leads back to the same URL."""

    name = "redirect_back"
    cookie = "laravel_session"
    field = "captcha"
    rule: ClassVar = {"image": "img.captcha-img", "input": "input#captcha"}

    def form(self, session: Session, message: str) -> str:
        return """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"></head><body>
<div class="card"><form method="POST"><div class="form-group row">
<img class="captcha-img" src="/redirect_back/captcha/flat?Xy12" alt="">
<input id="captcha" type="text" class="form-control" placeholder="Enter Captcha" name="captcha">
</div><button type="submit" class="btn">Submit</button></form></div></body></html>"""

    def do_captcha(self, session: Session, *_: str) -> Response:
        return self.image(session)

    def accepted(self, session: Session, i: str) -> Any:
        return redirect(here())

    def refused(self, session: Session) -> Any:
        return redirect(here())


class Login(CheckPage):
    """A login with a captcha; username `demo`, password `secret`, terms to be accepted."""

    name = "login"
    cookie = "sessionid"
    page = "signin"
    field = "captcha_1"
    rule: ClassVar = {
        "image": "img.captcha",
        "input": "#id_captcha_1",
        "fields": {"username": "demo", "password": "secret", "terms": "yes"},
    }

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html><html><head><title>Sign in</title></head><body>
<form action="/login/" method="get"><input type="search" name="q"><button>Find</button></form>
<ul class="errorlist"><li>{message}</li></ul>
<form method="post" id="login">
<input type="hidden" name="csrfmiddlewaretoken" value="{self.new_token(session)}">
<p><label for="id_username">Username:</label> <input name="username" id="id_username" required></p>
<p><label for="id_password">Password:</label> <input type="password" name="password" required></p>
<p><img src="/login/captcha/{session.token}/" alt="captcha" class="captcha">
<input type="hidden" name="captcha_0" value="{session.token}">
<input type="text" name="captcha_1" required id="id_captcha_1" autocapitalize="off"></p>
<p><label><input type="checkbox" name="terms" value="yes"> I accept the terms</label></p>
<p><input type="submit" value="Log in"></p></form></body></html>"""

    def do_captcha(self, session: Session, *_: str) -> Response:
        return self.image(session)

    do_signin = CheckPage.do_check

    def sent_token(self) -> str:
        return request.form.get("csrfmiddlewaretoken", "")

    def proper(self, session: Session) -> bool:
        form = request.form
        return (
            form.get("username") == "demo"
            and form.get("password") == "secret"
            and form.get("terms") == "yes"
            and form.get("captcha_0") == self.sent_token() == session.token
        )


class EveryK(Here):
    """Asks again after `?k=` (default: site.every_k) records, the answered one included."""

    name = "every_k"
    cookie = "every_k_sid"

    def form(self, session: Session, message: str) -> str:
        return super().form(session, message).replace("/inplace/", "/every_k/")

    def pages(self) -> float:
        return int(request.args.get("k", self.site.every_k))


class RefreshesOn(Here):
    """A captcha for every record, and each page behind one refreshes to another address."""

    name = "refreshes_on"
    cookie = "refreshes_on_sid"

    def form(self, session: Session, message: str) -> str:
        return super().form(session, message).replace("/inplace/", f"/{self.name}/")

    def pages(self) -> float:
        return 1

    def accepted(self, session: Session, i: str) -> Any:
        self.admit(session)
        url = f"/{self.name}/details/{i}"
        return f'<html><head><meta http-equiv="refresh" content="0; URL={url}"></head></html>'

    def do_details(self, session: Session, i: str) -> Any:
        return self.record(i)


class Pdf(InPlace):
    """A court's document download: behind the captcha is a PDF, not a page."""

    name = "pdf"
    cookie = "ASP.NET_SessionId"
    field = "ctl00$txtCode"
    rule: ClassVar = {"image": "#ctl00_imgCode", "input": "#ctl00_txtCode"}

    def form(self, session: Session, message: str) -> str:
        return f"""<html><head><title>Document</title></head><body>
<form name="aspnetForm" method="post" action="{escape(here())}" id="aspnetForm">
<span id="ctl00_lblError" style="color:Red;">{message}</span><br />
<img id="ctl00_imgCode" src="/pdf/captcha.aspx" style="height:50px;width:140px;" />
<input name="ctl00$txtCode" type="text" id="ctl00_txtCode" />
<input type="submit" name="ctl00$btn" value="Download" id="ctl00_btn" /></form></body></html>"""

    def record(self, i: str) -> Any:
        self.count("passes")
        return Response(f"%PDF-1.4\n% Record {i}\n%%EOF\n".encode(), mimetype="application/pdf")


class Post(Through):
    """A search that is POSTed. The wall forgets it: after the answer it must be posted again."""

    name = "post"
    cookie = "post_sid"

    def wall(self, session: Session, message: str = "") -> Any:
        return redirect(f"/post/check?back={quote(request.path, safe='')}")

    def do_search(self, session: Session) -> Any:
        term = request.form.get("term")
        if request.method != "POST" or not term:
            return "<html><body>Nothing to search for</body></html>", 400
        return self.record(term) if self.admit(session) else self.wall(session)


class NoCaptcha(Scenario):
    """Nothing to solve, though the pages speak of captchas and have forms and images."""

    name = "nocaptcha"
    cookie = "plain"
    rule: ClassVar = {"image": "img#captcha", "input": "input[name=code]"}

    def do_record(self, session: Session, i: str) -> str:
        self.count("passes")
        return f"""<!DOCTYPE html><html><head><title>Captcha, a history</title></head><body>
<img src="/static/logo.png" alt="The captcha museum"><h1 class="record">Record {escape(i)}</h1>
<p>A captcha asks for the code in an image. This page has none.</p>
<form action="/nocaptcha/"><input name="q"><button>Search the captcha museum</button></form>
</body></html>"""


WALLS: list[type[Scenario]] = [
    Here,
    Forbidden,
    Unavailable,
    Redirect,
    RedirectAgain,
    Through,
    ThroughSilent,
    OneCheck,
    Refreshing,
    MetaRefresh,
    RedirectBack,
    Login,
    EveryK,
    RefreshesOn,
    Pdf,
    Post,
    NoCaptcha,
]
