"""A form of a parsed page, filled in and encoded as a browser would.

form2request decides what a form sends; what it leaves out is closed here: multipart, pages that are
not UTF-8, image buttons, disabled controls, controls tied by form="id", and the document's order of
the values. All that happens on a copy of the page that form2request then reads.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlsplit

from form2request import form2request
from parsel import Selector
from urllib3 import encode_multipart_formdata
from w3lib.encoding import resolve_encoding

from scrapy_acecaptcha.errors import CaptchaFormError, RuleError
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import same_text, select, text_of

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

_CONTROLS = "self::input or self::select or self::textarea or self::button"
_TEXT_TYPES = {"", "text", "search", "tel", "number", "password", "url", "email"}
_BUTTON_TYPES = {"button", "reset", "submit", "image"}
# What a field for the answer is called. The first row says captcha outright, the second may be
# said of other fields too (and is not when the word is part of postcode, country_code, ...).
_SURE = re.compile(r"captcha|kaptcha|yanzhengma|yzm|验证码|驗證碼|校验码|認証|капч", re.IGNORECASE)
_LIKELY = re.compile(
    r"verif|v(?:er|alid)?[-_]?code|valid(?:at|_|-|$)|check[-_]?code|"
    r"secur\w*[-_ ]?(?:code|text|word)|"
    r"(?:^|[^a-z])(?:image|img|picture|pic)[-_ ]?(?:code|text|word)|rand(?:om)?[-_]?code|"
    r"(?<![a-z])codes?(?![a-z])|(?<=[a-z])Code(?![a-z])|characters|letters|"
    r"(?<!\w)код|código|codigo|codice|doğrulama|güvenlik|sicherheits|bestätigungs|कोड",
)
_OTHER_CODES = re.compile(
    r"(?:post|zip|country|area|promo|coupon|discount|voucher|phone|dial|bar|state|city|region|bank|"
    r"currency|language|company|tax|product|item|reg)\w*[-_ ]?code|postal",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Submission:
    """An HTTP request that submits a form.

    :param charset: encoding of the names and values in *body*
    """

    url: str
    method: str
    headers: dict[str, str]
    body: bytes


class Form:
    """The form of a page that a rule speaks of.

    :param html: the page's source
    :param url: the page's address
    :param base_url: what relative addresses are relative to
    :param encoding: the page's encoding, as Scrapy names it
    :raises RuleError: there is no such form or field, or more than one that could be meant
    """

    def __init__(
        self, html: str, rule: CaptchaRule, *, url: str, base_url: str, encoding: str
    ) -> None:
        self.rule = rule
        self.url = url
        self.encoding = _browser_encoding(encoding)
        # A tree of our own: it is changed below, and the spider may read the page's.
        self._page = Selector(text=html, type="html", base_url=base_url)
        self._form = self._find_form()
        self._controls = [c for c in self._all_controls() if not _is_disabled(c)]
        self.input = self._find_input()

    def submission(self, answer: str) -> Submission:
        """Fill in *answer* and the rule's fields and press the button.

        :raises CaptchaFormError: the form's action is not an http(s) address, or leads from https
            to http
        :raises RuleError: the rule's button is not in the form
        """
        for name, value in self.rule.fields.items():
            self._fill(name, value)
        _set_text(self.input, answer)
        button = self._button()
        self._press(button)
        self._keep_what_browsers_send(button)
        if self._form.get("action", "").strip() in ("", "#"):
            self._form.set("action", self.url)
        enctype = (self._form.get("enctype") or "").lower()
        try:
            request = form2request(self._form, click=False, enctype=URLENCODED)
        except (NotImplementedError, ValueError) as error:
            raise self._refused(f"The form cannot be submitted: {error}") from None
        self._check_target(request.url)
        return self._encode(request.url, request.method, request.body, enctype)

    # What the form is made of

    def _find_form(self) -> Any:
        if self.rule.form:
            matches = select(self._page, self.rule.form)
            if not matches:
                raise self._wrong("form", f"no element matches {self.rule.form!r}")
            element = matches[0].root
            form = element if element.tag == "form" else next(element.iter("form"), None)
            if form is None:
                form = _form_of(element, self._page)
            if form is None:
                raise self._wrong("form", f"{self.rule.form!r} matches no <form>")
            return form
        for name in ("input", "image"):
            selector = getattr(self.rule, name)
            found = list(select(self._page, selector)) if selector and selector != "auto" else []
            if name == "input" and selector and not found:
                raise self._wrong("input", f"no element matches {selector!r}")
            forms = [form for m in found if (form := _form_of(m.root, self._page)) is not None]
            if forms:
                return forms[0]
        forms = [f.root for f in self._page.xpath("//form")]
        speaking = [f for f in forms if any(_SURE.search(_speech(c, self._page)) for c in f.iter())]
        if len(speaking) == 1:
            return speaking[0]
        if len(forms) == 1:
            return forms[0]
        raise self._wrong(
            "form",
            "there is no form around the captcha; name it, or use Playwright if scripts send it",
        )

    def _all_controls(self) -> list[Any]:
        """The form's controls in the document's order, those tied to it by form="id" too."""
        return [
            control.root
            for control in self._page.xpath(f"//*[{_CONTROLS}]")
            if _form_of(control.root, self._page) is self._form
        ]

    def _find_input(self) -> Any:
        if self.rule.input:
            matches = select(self._page, self.rule.input)
            if not matches:
                raise self._wrong("input", f"no element matches {self.rule.input!r}")
            return matches[0].root
        texts = [c for c in self._controls if _is_text(c) and c.get("name") not in self.rule.fields]
        for pattern in (_SURE, _LIKELY):
            found = [
                c for c in texts if pattern.search(_OTHER_CODES.sub("", _speech(c, self._page)))
            ]
            if len(found) == 1:
                return found[0]
            if found:
                texts = found
                break
        raise self._wrong(
            "input",
            "is not given and cannot be told: "
            + (
                "candidates are " + ", ".join(_named(c) for c in texts)
                if texts
                else "the form has no text field"
            ),
        )

    def _button(self) -> Any:
        """The button to press; None if the form has none and is sent by Enter."""
        buttons = [c for c in self._controls if _type(c) in ("submit", "image")]
        if self.rule.submit is None:
            # A captcha that is an <input type=image> would submit the form, too, if clicked.
            captcha = [m.root for m in select(self._page, self.rule.image)]
            buttons = [b for b in buttons if b not in captcha] or buttons
            return buttons[0] if buttons else None
        text = text_of(self.rule.submit)
        if text is not None:
            chosen = [b for b in buttons if same_text(_caption(b), text)]
        else:
            chosen = [m.root for m in select(self._page, self.rule.submit)]
        if not chosen:
            raise self._wrong("submit", f"no button matches {self.rule.submit!r}")
        return chosen[0]

    # Filling in

    def _fill(self, name: str, value: Any) -> None:
        """Set the control called *name*, whatever its kind; add one that JavaScript would add."""
        values = [str(v) for v in value] if isinstance(value, (list, tuple)) else [value]
        controls = [c for c in self._controls if c.get("name") == name]
        boxes = [c for c in controls if _type(c) in ("checkbox", "radio")]
        selects = [c for c in controls if c.tag == "select"]
        texts = [c for c in controls if c not in boxes and c not in selects]
        for box in boxes:
            wanted = (
                value if isinstance(value, bool) else box.get("value", "on") in map(str, values)
            )
            box.attrib.pop("checked", None)
            if wanted:
                box.set("checked", "checked")
        for control in selects:
            self._choose(control, [str(v) for v in values])
        if not boxes and not selects:
            while len(texts) < len(values):
                texts.append(self._add_hidden(name))
            for control, text in zip(texts, values, strict=False):
                _set_text(control, str(text))

    def _choose(self, control: Any, values: list[str]) -> None:
        options = list(control.iter("option"))
        for wanted in values:
            chosen = [o for o in options if _option_value(o) == wanted] or [
                o for o in options if " ".join(o.text_content().split()) == wanted
            ]
            if not chosen:
                raise self._wrong(
                    "fields",
                    f"{control.get('name')!r} has no option {wanted!r}; it has "
                    + ", ".join(repr(_option_value(o)) for o in options[:20]),
                )
            if control.get("multiple") is None or wanted == values[0]:
                for option in options:
                    option.attrib.pop("selected", None)
            chosen[0].set("selected", "selected")

    def _add_hidden(self, name: str, value: str = "", before: Any = None) -> Any:
        hidden = self._form.makeelement("input", {"type": "hidden", "name": name, "value": value})
        if before is not None:
            before.addprevious(hidden)
        else:
            self._form.append(hidden)
        self._controls.append(hidden)
        return hidden

    def _press(self, button: Any) -> None:
        """Let *button* speak for itself: its name and value, and what it overrides."""
        if button is None:
            return
        for name in ("action", "method", "enctype"):
            if button.get(f"form{name}"):
                self._form.set(name, button.get(f"form{name}"))
        name = button.get("name")
        if _type(button) == "image":  # a browser sends where it was clicked
            prefix = f"{name}." if name else ""
            self._add_hidden(f"{prefix}x", "0", before=button)
            self._add_hidden(f"{prefix}y", "0", before=button)
        elif name:
            self._add_hidden(name, button.get("value") or "", before=button)

    def _keep_what_browsers_send(self, button: Any) -> None:
        """Gather what is to be sent inside the form, in order, and drop all else."""
        sent = {id(c) for c in self._controls if _type(c) not in _BUTTON_TYPES and c.get("name")}
        ordered = [c.root for c in self._page.xpath(f"//*[{_CONTROLS}]") if id(c.root) in sent]
        kept = []
        for control in ordered:
            if _type(control) in ("checkbox", "radio") and control.get("checked") is None:
                continue
            kept.extend(self._plain(control))
        for child in list(self._form):
            self._form.remove(child)
        self._form.extend(kept)

    def _plain(self, control: Any) -> list[Any]:
        """Write *control* as hidden inputs, one a value."""
        name = control.get("name")
        if control.tag == "select":
            values = _selected(control)
        elif control.tag == "textarea":
            values = [_crlf(control.text or "")]
        elif _type(control) in ("checkbox", "radio"):
            values = [control.get("value", "on")]
        elif _type(control) == "hidden" and name == "_charset_":
            values = [self.encoding]
        else:
            value = control.get("value") or ""
            single_line = _type(control) in _TEXT_TYPES
            values = [re.sub(r"[\r\n]", "", value) if single_line else _crlf(value)]
        return [
            self._form.makeelement("input", {"type": "hidden", "name": name, "value": value})
            for value in values
        ]

    # Sending

    def _check_target(self, url: str) -> None:
        target, page = urlsplit(url), urlsplit(self.url)
        if target.scheme not in ("http", "https"):
            raise self._refused(
                f"The form is sent to {url[:80]!r}, which is not an http(s) address"
            )
        if page.scheme == "https" and target.scheme == "http":
            raise self._refused(f"The form leads from https to {url[:80]!r} in clear text")

    def _encode(self, url: str, method: str, body: bytes, enctype: str) -> Submission:
        if method == "GET":
            before, _, query = url.partition("?")
            pairs = parse_qsl(query.partition("#")[0], keep_blank_values=True)
            encoded = self._urlencode(pairs)
            return Submission(f"{before}?{encoded}" if encoded else before, "GET", {}, b"")
        pairs = parse_qsl(body.decode("ascii"), keep_blank_values=True)
        if enctype == MULTIPART:
            no_file = ("", b"", "application/octet-stream")
            files = {c.get("name") for c in self._controls if _type(c) == "file"}
            fields: list[tuple[str, Any]] = [
                (name, no_file if name in files else self._bytes(value)) for name, value in pairs
            ]
            content, content_type = encode_multipart_formdata(fields)
        elif enctype == "text/plain":
            content_type = "text/plain"
            content = b"".join(self._bytes(f"{name}={value}\r\n") for name, value in pairs)
        else:
            content_type, content = URLENCODED, self._urlencode(pairs).encode("ascii")
        return Submission(url, "POST", {"Content-Type": content_type}, content)

    def _urlencode(self, pairs: list[tuple[str, str]]) -> str:
        return "&".join(f"{self._quote(name)}={self._quote(value)}" for name, value in pairs)

    def _quote(self, text: str) -> str:
        # The set of unreserved characters is the URL Standard's, which is not Python's.
        return quote_plus(self._bytes(text), safe="*").replace("~", "%7E")

    def _bytes(self, text: str) -> bytes:
        return text.encode(self.encoding, "xmlcharrefreplace")

    def _wrong(self, field: str, message: str) -> RuleError:
        return RuleError(message, field=field, host=self.url)

    def _refused(self, message: str) -> CaptchaFormError:
        return CaptchaFormError(message, url=self.url, selector=self.rule.image)


def _form_of(element: Any, page: Selector) -> Any:
    """The <form> that *element* belongs to: by its form attribute, else the one around it."""
    owner = element.get("form")
    if owner is not None:
        forms = page.xpath("//form[@id=$id]", id=owner)
        return forms[0].root if forms else None
    return next(iter([element] if element.tag == "form" else element.iterancestors("form")), None)


def _is_disabled(control: Any) -> bool:
    if control.get("disabled") is not None:
        return True
    inside = control
    for parent in control.iterancestors():
        if parent.tag == "datalist":
            return True
        if parent.tag == "fieldset" and parent.get("disabled") is not None:
            legend = parent.find("legend")
            if legend is None or inside is not legend:
                return True
        inside = parent
    return False


def _type(control: Any) -> str:
    kind = (control.get("type") or "").strip().lower()
    if control.tag == "button":
        return kind if kind in ("button", "reset") else "submit"
    return kind if control.tag == "input" else control.tag


def _is_text(control: Any) -> bool:
    return (
        control.tag == "input"
        and _type(control) not in {"hidden", "checkbox", "radio", "file", "range", "color", "date"}
        and _type(control) not in _BUTTON_TYPES
        and control.get("readonly") is None
    )


def _speech(control: Any, page: Selector) -> str:
    """All that a control says of itself: name, id, placeholder and labels."""
    if not isinstance(control.tag, str) or control.tag != "input":
        return ""
    said = [control.get(a) or "" for a in ("name", "id", "placeholder", "title", "aria-label")]
    labels = list(control.iterancestors("label"))
    if control.get("id"):
        labels += [label.root for label in page.xpath("//label[@for=$id]", id=control.get("id"))]
    return " | ".join(said + [label.text_content() for label in labels])


def _named(control: Any) -> str:
    kind = _type(control) or "text"
    return f"<input type={kind} name={control.get('name')!r} id={control.get('id')!r}>"


def _caption(button: Any) -> str:
    return str(button.get("value") or button.get("alt") or button.text_content())


def _set_text(control: Any, text: str) -> None:
    if control.tag == "textarea":
        control.text = text
    else:
        control.set("value", text)


def _option_value(option: Any) -> str:
    value = option.get("value")
    return " ".join(option.text_content().split()) if value is None else value


def _selected(control: Any) -> list[str]:
    """Values that a <select> sends: the chosen options, or the first of a drop-down."""
    options = list(control.iter("option"))
    usable = [o for o in options if not _is_disabled_option(o)]
    chosen = [o for o in usable if o.get("selected") is not None]
    if control.get("multiple") is not None:
        return [_option_value(o) for o in chosen]
    if any(o.get("selected") is not None for o in options):
        last = [o for o in options if o.get("selected") is not None][-1]
        return [_option_value(last)] if last in usable else []
    return [_option_value(o) for o in usable[:1]]


def _is_disabled_option(option: Any) -> bool:
    group = option.getparent()
    return option.get("disabled") is not None or (
        group.tag == "optgroup" and group.get("disabled") is not None
    )


def _crlf(text: str) -> str:
    return re.sub(r"\r\n|\r|\n", "\r\n", text)


def _browser_encoding(encoding: str) -> str:
    """The encoding in which a browser sends forms of a page that Scrapy reads as *encoding*.

    Scrapy widens gb2312 and gbk to gb18030 for reading, but browsers send them as GBK. Source: the
    Encoding Standard, "get an output encoding".
    """
    codec = (resolve_encoding(encoding) or "utf-8").lower()
    if codec.startswith(("utf-16", "utf-32")):
        return "utf-8"
    return "gbk" if codec == "gb18030" else codec
