"""What a browser would see of a template: its tags (PHP, JSP, Twig, ERB, Vue...) taken off.

A light touch, by patterns: what a tag prints is replaced by the words in quotes in it (mostly an
address or a text), else by a number; controls of frameworks become those of HTML.
"""

from __future__ import annotations

import re

_EXTENSIONS = """
    html htm xhtml shtml html5 php phtml php3 php5 inc tpl twig jsp jspf ftl vm erb rhtml asp aspx
    ascx cshtml vbhtml master vue j2 jinja jinja2 mako pt zpt cfm tt tmpl tmp dwt lbi volt latte
    mustache hbs handlebars ejs thtml ctp jelly xsl dtl mc mas
"""
EXTENSIONS = frozenset(_EXTENSIONS.split())

_COMMENTS = r"<%--.*?--%>|\{#.*?#\}|\{\*.*?\*\}|<#--.*?-->|@\*.*?\*@"
_STATEMENTS = r"\{%.*?%\}|\[%-?.*?-?%\]|</?#[^>]*>|</?@[^>]*>|<!--#.*?-->|</?TMPL_(?!VAR)[^>]*>"
# What begins one of these prints; the rest of it is an expression.
_PRINTS = r"<%[-=:#]|<\?=|<\?php\s+(?:echo|print|e)\b|<\?\s+echo\b"
_CODE = r"<\?(?!xml\b).*?(?:\?>|\Z)|<%.*?%>"
_CODE_TAG = r"<\?(?:(?!\?>).)*\?>|<%(?:(?!%>).)*%>"
_EXPRESSION = (
    r"<TMPL_VAR\b[^>]*>|\{\{\{?.*?\}\}\}?|\$\{[^}]*\}|#\{[^}]*\}|@\{[^}]*\}|"
    r"\{[$=@!:]?[\w$][^{};<>\n]{0,120}\}"
)
_RAZOR = r"^\s*@(?:if|for|foreach|model|using|section|extends|include|csrf)\b.*$"
_SMARTY = (
    r"\{/?(?:if|else|elseif|foreach|section|include|literal|while|loop|template|block|for)\b[^}]*\}"
)


def as_html(source: str) -> str:
    """The template *source* as HTML."""
    html = re.sub(_COMMENTS, "", source, flags=re.DOTALL)
    html = _controls(html)
    html = re.sub(rf"(\bvalue\s*=\s*)(['\"])(?:{_CODE_TAG})\2", _empty_value, html, flags=re.DOTALL)
    html = re.sub(_CODE, _printed_code, html, flags=re.DOTALL)
    html = re.sub(_STATEMENTS, "", html, flags=re.DOTALL)
    html = re.sub(_SMARTY, "", html)
    # In a form that nobody has sent, what an expression puts into a field is nothing.
    html = re.sub(rf"(\bvalue\s*=\s*)(['\"])(?:{_EXPRESSION})\2", r"\1\2\2", html, flags=re.DOTALL)
    html = re.sub(_EXPRESSION, _printed, html, flags=re.DOTALL)
    html = re.sub(r"@(?:Url\.\w+|Html\.\w+)\([^)\n]*\)", _printed, html)
    return re.sub(_RAZOR, "", html, flags=re.MULTILINE)


def _empty_value(match: re.Match[str]) -> str:
    words = re.search(r"""['"]([^'"<>$]*[A-Za-z][^'"<>$]*)['"]\s*\)?\s*;?\s*[?%]>""", match[0])
    return f"{match[1]}{match[2]}{words[1] if words and '$' not in match[0] else ''}{match[2]}"


def _printed_code(match: re.Match[str]) -> str:
    code = match[0]
    if re.match(_PRINTS, code):
        return _printed(match)
    return ""


def _printed(match: re.Match[str]) -> str:
    """What an expression prints, as far as that can be told: its words in quotes, else a number."""
    quoted = re.findall(r"""'([^'<>]*)'|"([^"<>]*)\"""", match[0])
    said = [one or other for one, other in quoted]
    addresses = [s for s in said if re.fullmatch(r"[\w~./?&=%:#-]*[/.?=][\w~./?&=%:#-]*", s)]
    words = addresses or [s for s in said if s.strip()]
    return words[-1].lstrip("~") if words else "1"


# Frameworks' controls


def _controls(html: str) -> str:
    html = _asp_net(html)
    html = _tag_libraries(html)
    html = re.sub(
        r"<%=\s*(?:\w+\.)?(?:text_field|telephone_field)(?:_tag)?\b(.*?)%>", _rails_field, html
    )
    html = re.sub(
        r"<%=\s*(?:\w+\.)?submit(?:_tag)?\b(.*?)%>", r"<input type=submit value=Submit>", html
    )
    html = re.sub(
        r"<%=\s*(?:\w+\.)?password_field(?:_tag)?\b(.*?)%>", r"<input type=password>", html
    )
    return _vue(html)


def _rails_field(match: re.Match[str]) -> str:
    named = re.search(r":(\w+)|['\"]([\w\[\]]+)['\"]", match[1])
    name = (named[1] or named[2]) if named else "x"
    hint = re.search(r"placeholder['\"]?\s*(?:=>|:)\s*['\"]([^'\"]*)", match[1])
    return f'<input type="text" name="{name}" placeholder="{hint[1] if hint else ""}">'


def _asp_net(html: str) -> str:
    kinds = {
        "TextBox": "<input type=text",
        "Image": "<img",
        "Button": "<input type=submit",
        "ImageButton": "<input type=image",
        "LinkButton": "<a href=#",
        "HyperLink": "<a href=#",
        "Label": "<span",
        "CheckBox": "<input type=checkbox",
    }
    for kind, tag in kinds.items():
        html = re.sub(rf"<asp:{kind}\b", tag, html, flags=re.I)
        html = re.sub(
            rf"</asp:{kind}\s*>",
            "</span>" if kind == "Label" else "</a>" if "Link" in kind else "",
            html,
            flags=re.I,
        )
    html = re.sub(
        r"(<input type=text\b[^>]*?)\bTextMode=['\"]?Password['\"]?",
        r"\1 type2=password",
        html,
        flags=re.I,
    )
    html = re.sub(r"<input type=text(?=[^>]*type2=password)", "<input type=password", html)
    html = re.sub(r"\bImageUrl=", "src=", html, flags=re.I)
    html = re.sub(r"(<input type=submit\b[^>]*?)\bText=", r"\1value=", html)
    return re.sub(r"\bCssClass=", "class=", html, flags=re.I)


def _tag_libraries(html: str) -> str:
    """Struts, Spring and JSF."""
    html = re.sub(
        r"<(?:s|h|p|form|html):(?:textfield|inputText|input|text)\b", "<input type=text", html
    )
    html = re.sub(
        r"<(?:s|h|p|form|html):(?:password|inputSecret|secret)\b", "<input type=password", html
    )
    html = re.sub(r"<(?:s|h|p|form|html):(?:submit|commandButton)\b", "<input type=submit", html)
    html = re.sub(r"<(?:h|p):graphicImage\b", "<img", html)
    html = re.sub(r"<(s|h|form|html):form\b", "<form", html)
    html = re.sub(r"</(s|h|form|html):form>", "</form>", html)
    html = re.sub(r"(<input\b[^>]*?)\b(?:path|property)=", r"\1name=", html)
    html = re.sub(r"<(?:c|s):url\s+(?:value|action)=['\"]([^'\"]*)['\"][^>]*?/?>", r"\1", html)
    html = re.sub(
        r"\bth:(src|href|action|value|text|placeholder)=\"@\{([^}\"]*)\}\"", r'\1="\2"', html
    )
    return re.sub(r"(<img\b[^>]*?)\b(?:url|value|name)=(?=['\"]/)", r"\1src=", html)


def _vue(html: str) -> str:
    html = re.sub(r"</?template\b[^>]*>", "", html)  # around what a component shows
    html = re.sub(
        r"<(?:el-input|a-input|van-field|v-text-field|Input)\b(?![^>]*type=.password)",
        "<input type=text",
        html,
    )
    html = re.sub(r"<(?:el-input|a-input|van-field|v-text-field|Input)\b", "<input", html)
    html = re.sub(r"</(?:el-input|a-input|van-field|v-text-field|Input)>", "", html)
    html = re.sub(r"<(?:el-image|a-image|van-image)\b", "<img", html)
    html = re.sub(r"<(el-button|a-button|van-button)\b", "<button type=button", html)
    html = re.sub(r"</(el-button|a-button|van-button)>", "</button>", html)
    html = re.sub(r"<(el-form|a-form|van-form)\b", "<form", html)
    html = re.sub(r"</(el-form|a-form|van-form)>", "</form>", html)
    # A script sets the address; what it is shows in no page's source.
    return re.sub(r"(?<=\s)(?:v-bind)?:src=(\"[^\"]*\"|'[^']*')", _bound_source, html)


def _bound_source(match: re.Match[str]) -> str:
    quoted = re.search(r"'([^']*/[^']*)'", match[1])
    return f'src="{quoted[1]}"' if quoted else 'src="data:image/png;base64,iVBORw0KGgo="'
