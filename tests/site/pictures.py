"""How the image comes: inlined, as a background, as SVG or canvas, from another port."""

from __future__ import annotations

import base64
import random
import textwrap
import uuid
from typing import TYPE_CHECKING, ClassVar

from flask import Response, request

from .scenario import InPlace, Scenario, Session

if TYPE_CHECKING:
    from .app import CaptchaSite


class DataUri(InPlace):
    """The image inlined; `?ws=1`: with line breaks after the comma and inside."""

    name = "datauri"
    cookie = "_rails_session"
    field = "captcha[value]"
    rule: ClassVar = {"image": "#captcha_image", "input": "#captcha_value"}

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>Registry</title></head><body>
<div class="flash alert">{message}</div>
<form class="simple_form" action="" accept-charset="UTF-8" method="post">
<input name="utf8" type="hidden" value="&#x2713;">
<img id="captcha_image" src="{self.data_uri(session)}">
<div class="input string"><label class="string" for="captcha_value">Enter the text</label>
<input class="string" type="text" name="captcha[value]" id="captcha_value"></div>
<input type="submit" name="commit" value="Show record"></form></body></html>"""

    def data_uri(self, session: Session) -> str:
        image = self.image(session)
        data = base64.b64encode(image.get_data()).decode()
        if request.args.get("ws"):
            data = "\n      " + "\n      ".join(textwrap.wrap(data, 76)) + "\n"
        return f"data:{image.mimetype};base64,{data}"


class Canvas(DataUri):
    """A script draws the image on a canvas. Only a browser gets anywhere here."""

    name = "canvas"
    cookie = "canvas_sid"
    field = "code"
    rule: ClassVar = {"image": "canvas", "input": "#code"}

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html><html><head><title>Check</title></head><body><p>{message}</p>
<form method="post"><canvas id="c" width="140" height="50"></canvas>
<input id="code" name="code"><button>Go</button></form>
<script>
  const image = new Image();
  image.onload = () => document.getElementById("c").getContext("2d").drawImage(image, 0, 0);
  image.src = "{self.data_uri(session)}";
</script></body></html>"""


class Background(DataUri):
    """A div with a background: `?css=` inline (default), block (a <style>), data (inlined)."""

    name = "background"
    cookie = "bg_session"
    field = "seccode"
    rule: ClassVar = {"image": "#captcha", "input": "input[name=seccode]"}

    def form(self, session: Session, message: str) -> str:
        css = request.args.get("css", "inline")
        url = self.data_uri(session) if css == "data" else "/background/captcha.png?v=3"
        size = "width:140px;height:50px"
        block = inline = ""
        if css == "block":
            block = (
                "<style>\nbody { color: #333 }\n"
                f'#captcha {{ {size}; background: #fff url("{url}") no-repeat 0 0; }}\n</style>'
            )
        else:
            inline = f" style=\"{size};background-image:url('{url}')\""
        return f"""<!DOCTYPE html><html><head><title>Seccode</title>{block}</head><body>
<em>{message}</em><form method=post action="">
<div id="captcha"{inline}></div>
<input name="seccode" type="text" class="txt"> <button type="submit" class="pn">OK</button>
</form></body></html>"""


class Svg(InPlace):
    """Drawn as vectors: `?how=` inline (default), data, img; `?size=no`: viewBox only."""

    name = "svg"
    cookie = "connect.sid"
    field = "captcha"
    rule: ClassVar = {"image": "#captcha", "input": "input[name=captcha]"}

    def form(self, session: Session, message: str) -> str:
        how = request.args.get("how", "inline")
        if how == "img":
            picture = '<img id="captcha" src="/svg/captcha.svg">'
        elif how == "data":
            data = base64.b64encode(self.svg(session).encode()).decode()
            picture = f'<img id="captcha" src="data:image/svg+xml;base64,{data}">'
        else:
            picture = self.svg(session).replace("<svg ", '<svg id="captcha" ', 1)
        return f"""<!DOCTYPE html><html><head><title>Node app</title></head><body><main>
<form method="post"><div class="captcha-box">{picture}</div>
<div class="invalid-feedback">{message}</div>
<input name="captcha" placeholder="Captcha"><button class="btn">Send</button></form>
</main></body></html>"""

    def do_captcha(self, session: Session) -> Response:
        return Response(self.svg(session), mimetype="image/svg+xml")

    def svg(self, session: Session) -> str:
        text = self.challenge(session)
        return self.site.gallery.svg(text, size=request.args.get("size") != "no")


class OtherPort(InPlace):
    """Image on the second port; a token in its URL says whose it is.

    `?form=1`: the form goes there too. `?host=1`: under another host name, without cookies.
    """

    name = "otherport"
    cookie = "portal"
    rule: ClassVar = {
        "image": "img.verify",
        "input": "input[name=code]",
        "hosts": ["localhost"],
    }

    def reset(self) -> None:
        super().reset()
        self.owners: dict[str, Session] = {}

    def session(self) -> Session:
        with self.site.lock:
            owner = self.owners.get(request.values.get("token", ""))
            return owner or super().session()

    def form(self, session: Session, message: str) -> str:
        token = uuid.uuid4().hex
        with self.site.lock:
            self.owners[token] = session
        other = self.site.other_host_url if request.args.get("host") else self.site.second_url
        target = f"{other}{request.path}?{request.query_string.decode()}"
        action = target.replace("&", "&amp;") if request.args.get("form") else ""
        return f"""<!DOCTYPE html><html><head><title>Portal</title></head><body>
<form method="post" action="{action}"><input type="hidden" name="token" value="{token}">
<label>Code <input name="code"></label> <span>{message}</span>
<img class="verify" src="{other}/otherport/captcha.png?token={token}&amp;w=140">
<input type="submit"></form></body></html>"""


class ImageInput(InPlace):
    """The captcha is itself an <input type=image>; another button submits.

    `stats["clicked"]` counts submissions that came as if by a click on the captcha.
    """

    name = "imageinput"
    cookie = "imageinput_sid"
    field = "txtcode"
    rule: ClassVar = {"image": "input[type=image]", "input": "#txtcode"}

    def form(self, session: Session, message: str) -> str:
        return f"""<html><body><form name="f" method="POST">{message}
<input type="image" name="imgcode" src="/imageinput/captcha.asp" onclick="return false">
<input type="text" id="txtcode" name="txtcode" maxlength="6">
<input type="submit" name="B1" value="Submit"></form></body></html>"""

    def proper(self, session: Session) -> bool:
        if "imgcode.x" in request.form:
            self.count("clicked")
        return request.form.get("B1") == "Submit"


class Pool(InPlace):
    """Draws from three images that it made once, as sites do whose images take long to make."""

    name = "pool"
    cookie = "pool_session"
    rule: ClassVar = {"image": "img.pooled", "input": "input[name=code]"}

    def __init__(self, site: CaptchaSite) -> None:
        super().__init__(site)
        self.files: dict[str, bytes] = {}

    def form(self, session: Session, message: str) -> str:
        return f"""<!DOCTYPE html><html><body>{message}
<form method="post"><img class="pooled" src="/pool/captcha"><input name="code"><button>Go</button>
</form></body></html>"""

    def image(self, session: Session) -> Response:
        with self.site.lock:
            while len(self.files) < 3:
                text = self.site.random_text()
                self.files[text] = self.site.gallery.png(text, "PNG")
            if session.expected:
                session.replaced.add(session.expected)
            session.expected = random.choice([t for t in self.files if t != session.expected])
            self.stats["images"] += 1
            return Response(self.files[session.expected], mimetype="image/png")


PICTURES: list[type[Scenario]] = [
    DataUri,
    Canvas,
    Background,
    Svg,
    OtherPort,
    ImageInput,
    Pool,
]
