"""A form of a parsed page, filled in and encoded as a browser would.

form2request tells where a form is sent and how. What it leaves out is closed here: multipart, pages
that are not UTF-8, image buttons, disabled controls, controls tied by form="id", and the document's
order of the values. The tests compare the outcome with what Chromium sends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple
from urllib.parse import quote, quote_plus, urljoin, urlsplit

from form2request import form2request
from parsel import Selector
from urllib3.filepost import choose_boundary
from w3lib.encoding import resolve_encoding
from w3lib.url import safe_url_string

from scrapy_acecaptcha.errors import CaptchaFormError, RuleError
from scrapy_acecaptcha.hosts import host_of, is_covered, same_site
from scrapy_acecaptcha.page.answer_field import answer_fields, matches_captcha, undecided
from scrapy_acecaptcha.rules import CaptchaRule
from scrapy_acecaptcha.selectors import same_text, select, text_of

URLENCODED = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data"

MAX_FORMS = 20  # of a page, among which one without its captcha is looked for

_CONTROLS = "self::input or self::select or self::textarea or self::button"
_BUTTON_TYPES = {"button", "reset", "submit", "image"}
_NOT_FILLED = {*_BUTTON_TYPES, "select", "file"}
_ENCODING_NAMES = {
    "utf-8": "UTF-8",
    "gbk": "GBK",
    "big5": "Big5",
    "cp932": "Shift_JIS",
    "cp949": "EUC-KR",
    "euc_jp": "EUC-JP",
    "iso2022_jp": "ISO-2022-JP",
}


@dataclass(frozen=True)
class Submission:
    """An HTTP request that submits a form."""

    url: str
    method: str
    headers: dict[str, str]
    body: bytes


def leaves_site(url: str) -> str:
    """What an error says of a form that would be sent to *url*, on another site than its page's."""
    host = host_of(url)
    return (
        f"The form is to be sent to another site, {host}, and was not; if that is right, name it "
        f'in the rule: "hosts": [{host!r}]'
    )


_FORM_END = "<?form-end>"  # a comment to HTML parsers, set before each </form>


class Posted(NamedTuple):
    """A form that the spider has sent itself.

    :param url: where it was sent
    """

    url: str
    values: Mapping[str, list[str]]


class _Entry(NamedTuple):
    name: str
    value: str
    is_file: bool = False


class Form:
    """The form of a page that a rule speaks of.

    :param html: the page's source
    :param url: the page's address
    :param base_url: what relative addresses are relative to
    :param encoding: the page's encoding, as Scrapy names it
    :param posted: what the spider sent itself; if it was this form, it is filled in again
    :param bare: the form has no captcha, as once a session has been let through; it is told by the
        rule's ``fields``, or by the earlier form that is given here
    :raises RuleError: there is no such form or field, or more than one that could be meant
    """

    def __init__(
        self,
        html: str,
        rule: CaptchaRule,
        *,
        url: str,
        base_url: str,
        encoding: str,
        posted: Posted | None = None,
        bare: bool | Form = False,
    ) -> None:
        self.rule = rule
        self.url = url
        # A tree of our own: it is changed below, and the spider may read the page's.
        marked = re.sub(r"(?=</form[\s>/])", _FORM_END, html, flags=re.IGNORECASE)
        self._page = Selector(text=marked, type="html", base_url=base_url)
        self._forms = _forms_of(self._page.root)
        self._form = self._find_bare_form(bare) if bare else self._find_form()
        self._controls = self._controls_of(self._form)
        self._typed: dict[Any, str] = {}
        self._added: list[_Entry] = []
        self._page_encoding = _browser_encoding(encoding)
        self.encoding = _accepted(self._form.get("accept-charset")) or self._page_encoding
        self.input = None if bare else self._find_input()
        self.is_filled_in_again = (
            posted is not None
            and self._is_sent_to(posted.url)
            and self._fill_in_again(posted.values)
        )

    def submission(self, answer: str) -> Submission:
        """Fill in *answer* and the rule's fields and press the button.

        :raises CaptchaFormError: the form's action is not an http(s) address, leads from https to
            http, or to another site that is not one of the rule's hosts
        :raises RuleError: the rule's button is not in the form
        """
        for name, value in self.rule.fields.items():
            self._fill(name, value)
        if self.input is not None:
            self._typed[self.input] = answer
        button = self._button()
        entries = self._entries(button)
        try:
            self._override(button)
            pairs = [(entry.name, entry.value) for entry in entries]
            request = form2request(self._form, pairs, click=False, enctype=URLENCODED)
            url = self._ascii(request.url.partition("#")[0])
        except (NotImplementedError, ValueError) as error:
            raise self._refused(f"The form cannot be submitted: {error}") from None
        self._check_target(url)
        return self._encode(url, request.method, entries)

    # What the form is made of

    def _find_form(self) -> Any:
        if self.rule.form:
            matches = select(self._page, self.rule.form)
            if not matches:
                raise self._wrong("form", f"no element matches {self.rule.form!r}")
            element = matches[0].root
            form = element if element.tag == "form" else next(element.iter("form"), None)
            if form is None:
                form = self._form_of(element)
            if form is None:
                raise self._wrong("form", f"{self.rule.form!r} matches no <form>")
            return form
        for name in ("input", "image"):
            selector = getattr(self.rule, name)
            found = list(select(self._page, selector)) if selector and selector != "auto" else []
            if name == "input" and selector and not found:
                raise self._wrong("input", f"no element matches {selector!r}")
            forms = [form for m in found if (form := self._form_of(m.root)) is not None]
            if forms:
                return forms[0]
        inputs = [match.root for match in self._page.xpath("//input")]
        says = {self._form_of(i) for i in inputs if matches_captcha(label_text(i, self._page))}
        forms = [f.root for f in self._page.xpath("//form")]
        speaking = [f for f in forms if f in says]
        if len(speaking) == 1:
            return speaking[0]
        if len(forms) == 1:
            return forms[0]
        raise self._wrong(
            "form",
            "there is no form around the captcha; name it, or use Playwright if scripts send it",
        )

    def _find_bare_form(self, earlier: bool | Form) -> Any:
        forms = [form.root for form in self._page.xpath("//form")]
        if self.rule.form:
            forms = [self._find_form()]
        for form in forms[:MAX_FORMS]:
            names = {control.get("name") for control in self._controls_of(form)}
            if self.rule.fields and names.issuperset(self.rule.fields):
                return form
            if isinstance(earlier, Form) and earlier.is_like(names):
                return form
        raise self._wrong("form", "the form is not on the page any more")

    def is_like(self, names: set[str]) -> bool:
        """Whether a form with controls of these *names* is this one, without the captcha."""
        mine = {control.get("name") for control in self._controls}
        typed = {c.get("name") for c in self._controls if is_text(c) and c is not self.input}
        return bool(typed) and typed <= names <= mine

    def _controls_of(self, form: Any) -> list[Any]:
        """The controls of *form* in the document's order, those tied to it by form="id" too."""
        return [
            control.root
            for control in self._page.xpath(f"//*[{_CONTROLS}][not(ancestor::template)]")
            if self._form_of(control.root) is form
        ]

    def _form_of(self, element: Any) -> Any:
        """The form that *element* belongs to, as browsers see it."""
        if element.get("form") is not None:
            return form_of(element, self._page)
        return self._forms.get(element)

    def _find_input(self) -> Any:
        if self.rule.input:
            matches = [match.root for match in select(self._page, self.rule.input)]
            if not matches:
                raise self._wrong("input", f"no element matches {self.rule.input!r}")
            sent = [m for m in matches if m in self._controls and m.get("name")]
            if not sent:
                raise self._wrong(
                    "input",
                    f"{self.rule.input!r} matches nothing that the form sends; if scripts send it, "
                    "use Playwright",
                )
            return sent[0]
        texts = [
            c
            for c in self._controls
            if is_text(c)
            and c.get("name")
            and c.get("name") not in self.rule.fields
            and not _is_disabled(c)
        ]
        found = answer_fields([label_text(c, self._page) for c in texts])
        if len(found) == 1:
            return texts[found[0]]
        texts = [texts[i] for i in found] or texts
        raise self._wrong("input", undecided([_named(c) for c in texts]))

    def _button(self) -> Any:
        """The button to press; None if the form has none and is sent by Enter."""
        buttons = [c for c in self._controls if _type(c) in ("submit", "image")]
        if self.rule.submit is None:
            return self._first_button([b for b in buttons if not _is_disabled(b)])
        text = text_of(self.rule.submit)
        if text is not None:
            chosen = [b for b in buttons if same_text(_caption(b), text)]
        else:
            chosen = [m.root for m in select(self._page, self.rule.submit)]
        if not chosen:
            raise self._wrong("submit", f"no button matches {self.rule.submit!r}")
        # Anything else that can be clicked on sends the form by a script, and nothing of itself.
        return next((element for element in chosen if element in buttons), None)

    def _first_button(self, buttons: list[Any]) -> Any:
        """The first of *buttons*; the captcha itself, if it is one of them, comes last."""
        if self.rule.image != "auto":
            images = [m.root for m in select(self._page, self.rule.image)]
            buttons = sorted(buttons, key=lambda button: button in images)
        return buttons[0] if buttons else None

    # Filling in

    @property
    def answer_name(self) -> str:
        """The name under which the answer is sent; empty if the form takes none."""
        return "" if self.input is None else str(self.input.get("name") or self.input.get("id"))

    @property
    def lacks_password(self) -> bool:
        """Whether it asks for a password that neither the rule nor the spider has given."""
        return any(
            _type(control) == "password"
            and control is not self.input
            and control.get("name") not in self.rule.fields
            and not self._typed.get(control, control.get("value"))
            for control in self._controls
        )

    def _is_sent_to(self, url: str) -> bool:
        target = urljoin(self._page.root.base_url or self.url, self._form.get("action") or self.url)
        return str(target).partition("?")[0].rstrip("/") == url.partition("?")[0].rstrip("/")

    def _fill_in_again(self, values: Mapping[str, list[str]]) -> bool:
        """Fill in what the spider had, but for what the page brings anew, as its tokens.

        :return: whether there was something to fill in, so that it is the same form
        """
        fresh = {c.get("name") for c in self._controls if _type(c) == "hidden" and c.get("value")}
        own = {*fresh, *self.rule.fields, self.input.get("name") if self.input is not None else ""}
        known = {c.get("name") for c in self._controls if _type(c) not in _BUTTON_TYPES}
        again = known & set(values) - own
        for name in again:
            with suppress(RuleError):  # an option that is not there any more
                self._fill(name, values[name])
        return bool(again)

    def _fill(self, name: str, value: Any) -> None:
        """Set the control called *name*, whatever its kind; add one that scripts would add."""
        values = [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]
        controls = [c for c in self._controls if c.get("name") == name and not _is_disabled(c)]
        boxes = [c for c in controls if _type(c) in ("checkbox", "radio")]
        selects = [c for c in controls if c.tag == "select"]
        others = [c for c in controls if c not in boxes and _type(c) not in _NOT_FILLED]
        if boxes:
            self._check_boxes(boxes, values, value)
        for control in selects:
            self._choose(control, values)
        if not boxes and not selects:
            self._typed.update(zip(others, values, strict=False))
            self._added += [_Entry(name, text) for text in values[len(others) :]]

    def _check_boxes(self, boxes: list[Any], values: list[str], value: Any) -> None:
        if isinstance(value, bool):
            values = [_box_value(box) for box in boxes] if value else []
        self._check_known(boxes[0].get("name"), values, [_box_value(box) for box in boxes])
        for box in boxes:
            box.attrib.pop("checked", None)
            if _box_value(box) in values:
                box.set("checked", "checked")

    def _choose(self, control: Any, values: list[str]) -> None:
        options = list(control.iter("option"))
        shown = [_option_text(o) for o in options]
        for option in options:
            option.attrib.pop("selected", None)
        for wanted in values:
            by_value = [o for o in options if _option_value(o) == wanted]
            by_text = [o for o, text in zip(options, shown, strict=True) if text == wanted]
            for chosen in (by_value or by_text)[:1]:
                chosen.set("selected", "selected")
        known = [_option_value(o) for o in options]
        self._check_known(control.get("name"), values, known, *shown)

    def _check_known(self, name: str, values: list[str], known: list[str], *more: str) -> None:
        for value in values:
            if value not in known and value not in more:
                raise self._wrong(
                    "fields",
                    f"{name!r} has no option {value!r}; it has "
                    + ", ".join(repr(v) for v in known[:20]),
                )

    def _entries(self, button: Any) -> list[_Entry]:
        """What a browser would send, in the document's order."""
        chosen = {c.get("name"): c for c in self._controls if _is_checked(c, "radio")}
        entries: list[_Entry] = []
        for control in self._controls:
            if control is button:
                entries += [e for e in _pressed(button) if e.name not in self.rule.fields]
            elif self._is_sent(control):
                name, kind = control.get("name"), _type(control)
                if kind != "radio" or control is chosen.get(name):
                    entries += [_Entry(name, v, kind == "file") for v in self._values(control)]
        entries += self._added
        return [_Entry(_as_sent(e.name), _as_sent(e.value), e.is_file) for e in entries]

    def _is_sent(self, control: Any) -> bool:
        if not control.get("name") or _type(control) in _BUTTON_TYPES:
            return False
        return control is self.input or not _is_disabled(control)

    def _values(self, control: Any) -> list[str]:
        kind = _type(control)
        if control in self._typed:
            return [self._typed[control]]
        if kind == "select":
            return _selected(control)
        if kind in ("checkbox", "radio"):
            return [_box_value(control)] if _is_checked(control, kind) else []
        if kind == "hidden" and control.get("name").lower() == "_charset_":
            return [_encoding_name(self.encoding)]
        return [_text(control)]

    def _override(self, button: Any) -> None:
        """Let *button* have its say on where the form goes."""
        for name in ("action", "method", "enctype"):
            override = None if button is None else button.get(f"form{name}")
            if override is not None:
                self._form.set(name, override)
        action = self._form.get("action", "").strip()
        if not action:
            self._form.set("action", self.url)
        elif action == "?":  # urljoin() would keep the page's query
            self._form.set("action", self._form.base_url.partition("?")[0])

    # Sending

    def _check_target(self, url: str) -> None:
        target, page = urlsplit(url), urlsplit(self.url)
        url = url.partition("?")[0]
        if target.scheme not in ("http", "https"):
            raise self._refused(
                f"The form is sent to {url[:80]!r}, which is not an http(s) address"
            )
        if page.scheme == "https" and target.scheme == "http":
            raise self._refused(f"The form leads from https to {url[:80]!r} in clear text")
        if not same_site(self.url, url) and not is_covered(url, self.rule.hosts):
            raise self._refused(leaves_site(url))

    def _encode(self, url: str, method: str, entries: list[_Entry]) -> Submission:
        if method == "GET":
            return Submission(
                f"{url.partition('?')[0]}?{self._urlencoded(entries)}", "GET", {}, b""
            )
        enctype = (self._form.get("enctype") or "").lower()
        if enctype == MULTIPART:
            boundary = choose_boundary()
            content_type, body = f"{MULTIPART}; boundary={boundary}", self._parts(entries, boundary)
        elif enctype == "text/plain":
            content_type = enctype
            body = b"".join(self._bytes(f"{e.name}={e.value}\r\n") for e in entries)
        else:
            content_type, body = URLENCODED, self._urlencoded(entries).encode("ascii")
        return Submission(url, "POST", {"Content-Type": content_type}, body)

    def _ascii(self, url: str) -> str:
        """Write a URL's path in UTF-8, but its query in the page's encoding, as browsers do."""
        path, mark, query = url.partition("?")
        encoding = self._page_encoding
        query = re.sub(
            r"[^\x00-\x7f]+", lambda text: quote(text[0], "", encoding, "xmlcharrefreplace"), query
        )
        return str(safe_url_string(path + mark + query))

    def _parts(self, entries: list[_Entry], boundary: str) -> bytes:
        parts = []
        for name, value, is_file in entries:
            quoted = name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{quoted}"'
            if is_file:
                head += '; filename=""\r\nContent-Type: application/octet-stream'
            parts.append(f"{head}\r\n\r\n{value}\r\n")
        return self._bytes("".join(parts) + f"--{boundary}--\r\n")

    def _urlencoded(self, entries: list[_Entry]) -> str:
        return "&".join(f"{self._quote(e.name)}={self._quote(e.value)}" for e in entries)

    def _quote(self, text: str) -> str:
        # The set of unreserved characters is the URL Standard's, which is not Python's.
        return quote_plus(self._bytes(text), safe="*").replace("~", "%7E")

    def _bytes(self, text: str) -> bytes:
        return text.encode(self.encoding, "xmlcharrefreplace")

    def _wrong(self, field: str, message: str) -> RuleError:
        return RuleError(message, field=field, host=self.url)

    def _refused(self, message: str) -> CaptchaFormError:
        return CaptchaFormError(message, url=self.url, selector=self.rule.image)


def _forms_of(root: Any) -> dict[Any, Any]:
    """The form of each element in one.

    A form begins and ends at its tags, even where a tag between them (`</td>`) ends all that the
    form stands in, and with it the form's element in the tree.
    """
    forms: dict[Any, Any] = {}
    form = None
    for node in root.iter():
        if not isinstance(node.tag, str):
            if _FORM_END in (f"<{node.text}>", f"<?{getattr(node, 'target', '')}>"):
                form = None
        elif form is None and node.tag == "form":
            form = node
        if form is not None:
            forms[node] = form
    return forms


def form_of(element: Any, page: Selector) -> Any:
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
    kind = (control.get("type") or "").lower()
    if control.tag == "button":
        return kind if kind in ("button", "reset") else "submit"
    return kind if control.tag == "input" else control.tag


def is_text(control: Any) -> bool:
    return (
        control.tag == "input"
        and _type(control) not in {"hidden", "checkbox", "radio", "file", "range", "color", "date"}
        and _type(control) not in _BUTTON_TYPES
        and control.get("readonly") is None
    )


def label_text(control: Any, page: Selector) -> str:
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
    if button.tag == "button":
        return str(button.text_content())
    return str(button.get("value") or button.get("alt") or "")


def _is_checked(control: Any, kind: str) -> bool:
    return _type(control) == kind and control.get("checked") is not None


def _box_value(box: Any) -> str:
    return str(box.get("value", "on"))


def _text(control: Any) -> str:
    """The value of a control that has one and needs not be chosen."""
    if control.tag == "textarea":
        return re.sub(r"\A\r?\n", "", control.text or "")  # HTML ignores a first line end
    value = "" if _type(control) == "file" else control.get("value", "")
    return str(value) if _type(control) == "hidden" else re.sub(r"[\r\n]", "", value)


def _pressed(button: Any) -> list[_Entry]:
    """What a button sends when it is pressed."""
    name = button.get("name")
    if _type(button) == "image":  # where it was clicked on
        prefix = f"{name}." if name else ""
        return [_Entry(f"{prefix}x", "0"), _Entry(f"{prefix}y", "0")]
    # Without a value, <input type=submit> sends what Chromium writes on it.
    nothing = "Submit" if button.tag == "input" else ""
    return [_Entry(name, button.get("value", nothing))] if name else []


def _option_text(option: Any) -> str:
    return " ".join(re.findall(r"[^ \t\n\f\r]+", option.text_content()))


def _option_value(option: Any) -> str:
    value = option.get("value")
    return _option_text(option) if value is None else str(value)


def _selected(select: Any) -> list[str]:
    """Values that a <select> sends: the chosen options, or the first of a drop-down."""
    options = list(select.iter("option"))
    chosen = [o for o in options if o.get("selected") is not None]
    if select.get("multiple") is None:
        lines = re.match(r"\s*\+?(\d+)", select.get("size", ""))
        is_drop_down = lines is None or int(lines[1]) < 2
        usable = [o for o in options if not _is_disabled_option(o)]
        chosen = chosen[-1:] or usable[: int(is_drop_down)]
    return [_option_value(o) for o in chosen if not _is_disabled_option(o)]


def _is_disabled_option(option: Any) -> bool:
    group = option.getparent()
    return option.get("disabled") is not None or (
        group.tag == "optgroup" and group.get("disabled") is not None
    )


def _as_sent(text: str) -> str:
    return re.sub(r"\r\n|\r|\n", "\r\n", text.replace(_FORM_END, ""))


def _accepted(labels: str | None) -> str | None:
    """The encoding that a form's accept-charset asks for."""
    known = filter(resolve_encoding, (labels or "").replace(",", " ").split())
    return next(map(_browser_encoding, known), None)


def _browser_encoding(label: str) -> str:
    """The codec in which a browser writes forms and queries of a page with this encoding."""
    codec = (resolve_encoding(label) or "utf-8").lower()
    if codec.startswith(("utf-16", "utf-32")):
        return "utf-8"
    # Scrapy widens GBK and Big5 for reading, but browsers do not write the letters that this adds.
    return {"gb18030": "gbk", "big5hkscs": "big5"}.get(codec, codec)


def _encoding_name(codec: str) -> str:
    """The name that the Encoding Standard has for Python's *codec*."""
    return _ENCODING_NAMES.get(codec) or re.sub("^cp(?=125|874)", "windows-", codec)
