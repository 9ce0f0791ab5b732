"""What users write as rules, and what answers become under them."""

from __future__ import annotations

import json
import pickle
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scrapy_acecaptcha.errors import RuleError, SettingsError
from scrapy_acecaptcha.rule_book import RuleBook
from scrapy_acecaptcha.rules import CaptchaRule

HOST = "example.org"
FIELDS = [
    "image",
    "input",
    "form",
    "submit",
    "fields",
    "frame",
    "hosts",
    "refresh",
    "success",
    "failure",
    "answer",
    "case",
    "arithmetic",
    "max_attempts",
    "after",
    "session",
    "sessions",
    "budget",
    "capture",
]


def rule(**fields: Any) -> CaptchaRule:
    return CaptchaRule.parse({"image": "#c", **fields}, host=HOST)


def book(*hosts: str) -> RuleBook:
    """Rules whose image tells the host they were written for."""
    return RuleBook({host: {"image": f'img[alt="{host}"]'} for host in hosts})


def found(rules: RuleBook, url: str) -> str | None:
    """The host of the rule for *url*."""
    match = rules.find(url)
    return match.image.split('"')[1] if match else None


def test_a_rule_of_one_field_has_the_documented_defaults() -> None:
    assert CaptchaRule.parse({"image": "img"}) == CaptchaRule(
        image="img",
        input=None,
        form=None,
        submit=None,
        fields={},
        frame=None,
        hosts=(),
        refresh=None,
        success=None,
        failure=None,
        answer=None,
        case=None,
        arithmetic=False,
        max_attempts=None,
        after="auto",
        session=True,
        sessions=1,
        budget=0,
        capture="screenshot",
    )


def test_every_field_is_kept() -> None:
    fields = {
        "image": "//img[1]",
        "input": "input[name=code]",
        "form": "(//form)[2]",
        "submit": "text=Go",
        "fields": {"q": "smith", "page": 2, "ratio": 0.5, "exact": True, "kind": ["a", "b"]},
        "frame": "#outer >> frame[name=inner]",
        "hosts": ["sso.example.org", "127.0.0.1:8000"],
        "refresh": "a.new",
        "success": ".ok",
        "failure": "text='Wrong code'",
        "answer": "[0-9]{4}",
        "case": "upper",
        "arithmetic": True,
        "max_attempts": 5,
        "after": "return",
        "session": False,
        "sessions": 8,
        "budget": 10,
        "capture": "source",
    }
    parsed = CaptchaRule.parse(fields, host=HOST)
    assert {name: getattr(parsed, name) for name in FIELDS} == fields
    assert CaptchaRule.parse(parsed) is parsed
    assert pickle.loads(pickle.dumps(parsed)) == parsed


COUNT = "must be a whole number of at least"
TEXT = "text, numbers, True, False and lists of text can be filled into a form"


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        ({"image": ""}, "image", "must be a selector, not ''"),
        ({"image": None}, "image", "must be a selector, not None"),
        ({"image": ["#c"]}, "image", "must be a selector, not ['#c']"),
        ({"input": " "}, "input", "must be a selector, not ' '"),
        ({"form": 1}, "form", "must be a selector, not 1"),
        ({"submit": True}, "submit", "must be a selector, not True"),
        ({"refresh": {}}, "refresh", "must be a selector, not {}"),
        ({"success": ""}, "success", "must be a selector, not ''"),
        ({"failure": b"x"}, "failure", "must be a selector, not b'x'"),
        ({"fields": ["q"]}, "fields", "must be a dict of name -> value, not ['q']"),
        ({"fields": {"q": None}}, "fields", f"'q' has the value None; only {TEXT}"),
        ({"fields": {"q": [["a"]]}}, "fields", f"'q' has the value [['a']]; only {TEXT}"),
        ({"fields": {1: "a"}}, "fields", f"1 has the value 'a'; only {TEXT}"),
        ({"answer": "[0-9"}, "answer", "bad regular expression '[0-9': unterminated character set"),
        ({"answer": 4}, "answer", "must be a regular expression, not 4"),
        ({"answer": b"x"}, "answer", "must be a regular expression, not b'x'"),
        ({"answer": "a{9999999999999}"}, "answer", "bad regular expression 'a{9999999999999}'"),
        ({"case": "UPPER"}, "case", "must be one of upper, lower, not 'UPPER'"),
        ({"case": []}, "case", "must be one of upper, lower, not []"),
        ({"after": None}, "after", "must be one of auto, stay, return, not None"),
        ({"capture": "png"}, "capture", "must be one of screenshot, source, not 'png'"),
        ({"arithmetic": 1}, "arithmetic", "must be True or False, not 1"),
        ({"session": "no"}, "session", "must be True or False, not 'no'"),
        ({"max_attempts": 0}, "max_attempts", f"{COUNT} 1, not 0"),
        ({"max_attempts": True}, "max_attempts", f"{COUNT} 1, not True"),
        ({"max_attempts": "3"}, "max_attempts", f"{COUNT} 1, not '3'"),
        ({"sessions": 0}, "sessions", f"{COUNT} 1, not 0"),
        ({"sessions": True}, "sessions", f"{COUNT} 1, not True"),
        ({"sessions": "8"}, "sessions", f"{COUNT} 1, not '8'"),
        ({"budget": -1}, "budget", f"{COUNT} 0, not -1"),
        ({"budget": 1.0}, "budget", f"{COUNT} 0, not 1.0"),
        ({"imput": "#c"}, "imput", "there is no such field; did you mean 'input'?"),
        ({"max_attempt": 2}, "max_attempt", "there is no such field; did you mean 'max_attempts'?"),
        ({"hosts": "a.example"}, "hosts", "must be a list of hosts, not 'a.example'"),
        ({"hosts": ["http://a"]}, "hosts", "'http://a' is not a host: write `example.org`"),
        ({"frame": ""}, "frame", "must be a selector, not ''"),
        ({"frame": "#a >> b["}, "frame", "bad CSS selector 'b['"),
        ({1: 2}, "1", f"there is no such field; known are {', '.join(FIELDS)}"),
    ],
)
def test_a_field_that_cannot_work_is_named(fields: Any, field: str, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        RuleBook({HOST: {"image": "#c", **fields}})
    assert (caught.value.host, caught.value.field) == (HOST, field)
    assert str(caught.value).startswith(f"rule for {HOST}, field {field!r}: {message}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"image": "img["}, "field 'image': bad CSS selector 'img['"),
        ({"image": "img:visible"}, "field 'image': bad CSS selector 'img:visible'"),
        ({"image": "//img["}, "field 'image': bad XPath '//img['"),
        ({"image": "//img[foo(.)]"}, "field 'image': bad XPath '//img[foo(.)]'"),
        ({"image": "//svg:svg"}, "field 'image': bad XPath '//svg:svg'"),
        ({"image": "text=Code"}, "field 'image': `text=` and some text may name a button"),
        ({"image": "img::attr(src)"}, "field 'image': 'img::attr(src)' matches an attribute"),
        ({"input": "//input/@name"}, "field 'input': '//input/@name' matches an attribute"),
        ({"input": "input[name=code"}, "field 'input': bad CSS selector"),
        ({"form": "(//form"}, "field 'form': bad XPath"),
        ({"submit": "text="}, "field 'submit': `text=` and some text may name a button"),
        ({"submit": "button::text"}, "field 'submit': 'button::text' matches an attribute or text"),
        ({"refresh": ">>>"}, "field 'refresh': bad CSS selector"),
        ({"success": "p..ok"}, "field 'success': bad CSS selector"),
        ({"failure": "xpath=//p["}, "field 'failure': bad XPath"),
    ],
)
def test_selectors_that_scrapy_cannot_use_are_refused(fields: Any, message: str) -> None:
    with pytest.raises(RuleError) as caught:
        RuleBook({HOST: {"image": "#c", **fields}})
    assert str(caught.value).startswith(f"rule for {HOST}, {message}")


def test_every_kind_of_selector_is_taken() -> None:
    rules = RuleBook(
        {
            HOST: {
                "image": "auto",
                "input": "xpath=//input[@name='code']",
                "form": "css=form#f",
                "submit": "text=Go",
                "refresh": "./a",
                "success": "h1::text",
                "failure": '//p[re:test(., "wrong|falsch")]',
            }
        }
    )
    assert len(rules) == 1


@pytest.mark.parametrize("text", ["image", None, 5, ["image"]])
def test_a_rule_is_a_mapping(text: Any) -> None:
    with pytest.raises(RuleError) as caught:
        RuleBook({HOST: text})
    assert str(caught.value) == f"rule for {HOST}: a rule is a dict of fields, not {text!r}"


def test_a_rule_needs_an_image() -> None:
    with pytest.raises(RuleError) as caught:
        RuleBook({HOST: {}})
    assert str(caught.value) == (
        f"rule for {HOST}, field 'image': is missing: the selector of the captcha element"
    )


def test_rule_errors_survive_pickling() -> None:
    with pytest.raises(RuleError) as caught:
        rule(budget=-1)
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (type(copy), str(copy), vars(copy)) == (RuleError, str(caught.value), vars(caught.value))
    assert isinstance(copy, (SettingsError, ValueError))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner),
    max_leaves=5,
)
names = st.sampled_from(FIELDS) | st.text(max_size=8) | st.integers()


@given(st.dictionaries(names, anything) | anything)
def test_whatever_is_written_is_a_rule_or_a_rule_error(fields: Any) -> None:
    with suppress(RuleError):
        CaptchaRule.parse(fields, host=HOST).check_selectors(host=HOST)


@given(st.dictionaries(st.text() | st.integers(), st.just({"image": "#c"})) | st.text() | anything)
def test_whatever_is_written_as_rules_is_a_book_or_a_rule_error(rules: Any) -> None:
    with suppress(RuleError):
        RuleBook(rules)


def test_rules_come_as_json_from_the_command_line() -> None:
    rules = RuleBook(json.dumps({HOST: {"image": "#c", "max_attempts": 2}}))
    assert rules.find(f"https://{HOST}/") == rule(max_attempts=2)


@pytest.mark.parametrize("text", ["", "{", "{'example.org': {}}", "[" * 100_000])
def test_broken_json_says_how_to_write_it(text: str) -> None:
    with pytest.raises(RuleError, match=r"not valid JSON .*; on the command line write -s ACECAPT"):
        RuleBook(text)


@pytest.mark.parametrize("rules", ["[]", '"x"', "5", "null"])
def test_json_that_is_no_object_is_refused(rules: str) -> None:
    with pytest.raises(RuleError, match="ACECAPTCHA_RULES is a dict of host -> rule, not "):
        RuleBook(rules)


@pytest.mark.parametrize(
    ("hosts", "url", "expected"),
    [
        (["example.org"], "https://example.org/a?b#c", "example.org"),
        (["example.org"], "http://example.org:8080/", "example.org"),
        (["example.org"], "https://a.b.example.org/", "example.org"),
        (["example.org"], "https://user:secret@example.org/", "example.org"),
        (["example.org"], "https://EXAMPLE.org./", "example.org"),
        (["Example.ORG."], "https://example.org/", "Example.ORG."),
        (["example.org"], "https://badexample.org/", None),
        (["example.org"], "https://example.org.evil.net/", None),
        (["example.org"], "https://org/", None),
        (["example.org"], "https://evil.net/?u=https://example.org/", None),
        (["example.org"], "https://example.org@evil.net/", None),
        (["org", "b.example.org", "example.org"], "https://a.b.example.org/", "b.example.org"),
        (["org", "b.example.org", "example.org"], "https://x.example.org/", "example.org"),
        (["example.org", "example.org:8000"], "http://example.org:8000/", "example.org:8000"),
        (["example.org", "example.org:8000"], "http://example.org/", "example.org"),
        (["a.example.org", "example.org:8000"], "http://a.example.org:8000/", "a.example.org"),
        (["example.org:8000"], "http://sub.example.org:8000/", "example.org:8000"),
        (["example.org.:8000"], "http://example.org:8000/", "example.org.:8000"),
        (["example.org:80"], "http://example.org/", "example.org:80"),
        (["example.org:443"], "https://example.org/", "example.org:443"),
        (["example.org:443"], "http://example.org/", None),
        (["example.org:"], "https://example.org/", "example.org:"),
        (["127.0.0.1:8000"], "http://127.0.0.1:8000/", "127.0.0.1:8000"),
        (["127.0.0.1:8000"], "http://127.0.0.1:8001/", None),
        (["0.0.1"], "http://127.0.0.1/", None),
        (["localhost:8000"], "http://localhost:8000/", "localhost:8000"),
        (["[::1]:8000"], "http://[::1]:8000/", "[::1]:8000"),
        (["[::1]"], "http://[0:0:0:0:0:0:0:1]:8000/", "[::1]"),
        (["[2001:DB8::1]"], "https://[2001:db8::1]/", "[2001:DB8::1]"),
        (["[::1]:8000"], "http://[::1]:8001/", None),
        (["bücher.example"], "https://xn--bcher-kva.example/", "bücher.example"),
        (["xn--bcher-kva.example"], "https://bücher.example/", "xn--bcher-kva.example"),
        (["example.org"], "http://example.org:99999/", None),
        (["example.org"], "http://[::1/", None),
        (["example.org"], f"http://{'a' * 64}.example.org/", None),
        (["example.org"], "data:text/html,example.org", None),
        (["example.org"], "about:blank", None),
        (["example.org"], "", None),
    ],
)
def test_the_most_specific_host_wins(hosts: list[str], url: str, expected: str | None) -> None:
    assert found(book(*hosts), url) == expected


def test_finding_remembers_but_not_for_ever() -> None:
    rules = book("example.org")
    assert {found(rules, f"https://{n}.example.org/") for n in range(20_000)} == {"example.org"}
    assert len(rules._found) <= 10_001


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        ".",
        ":8000",
        "https://example.org",
        "example.org/path",
        "example.org?x",
        "*.example.org",
        "user@example.org",
        "example org",
        "example.org:http",
        "example.org:99999",
        "::1",
        "[::1",
        "[::g]",
        "a" * 64 + ".org",
        "example..org",
    ],
)
def test_a_key_that_is_no_host_is_refused(host: str) -> None:
    with pytest.raises(RuleError) as caught:
        RuleBook({host: {"image": "#c"}})
    assert caught.value.host == host
    assert "is not a host: " in str(caught.value)


def test_a_host_has_one_rule() -> None:
    with pytest.raises(RuleError, match=r"^rule for EXAMPLE\.org: is named twice$"):
        book("example.org", "EXAMPLE.org")


def test_what_a_request_says_is_laid_over_the_rule() -> None:
    base = rule(input="#i", success=".ok", fields={"q": "a"}, max_attempts=5)
    laid = base.overlaid({"success": None, "fields": {"p": "b"}, "case": "lower"}, host="meta")
    assert laid == rule(input="#i", fields={"p": "b"}, max_attempts=5, case="lower")
    assert base == rule(input="#i", success=".ok", fields={"q": "a"}, max_attempts=5)


@pytest.mark.parametrize("changes", [{"imput": "#i"}, {"image": None}, {"budget": "1"}])
def test_what_a_request_says_is_checked(changes: dict[str, Any]) -> None:
    with pytest.raises(RuleError, match=r"rule for meta, field '(imput|image|budget)': "):
        rule().overlaid(changes, host="meta")


@pytest.mark.parametrize(
    ("fields", "text", "answer"),
    [
        ({}, "7364", "7364"),
        ({}, " a B\tc\n", "aBc"),
        ({}, "a\u00a0b\u3000c", "abc"),
        ({}, "", None),
        ({}, " \n", None),
        ({"case": "upper"}, "aB3", "AB3"),
        ({"case": "lower"}, "aB3", "ab3"),
        ({"answer": "[0-9]{4}"}, "73 64", "7364"),
        ({"answer": "[0-9]{4}"}, "73645", None),
        ({"answer": "[0-9]{4}"}, "x7364", None),
        ({"answer": "[0-9]{4}|[a-z]"}, "7364a", None),
        ({"answer": "[a-z]+ [a-z]+"}, " red fox\n", "red fox"),
        ({"answer": "[a-z]+ [a-z]+"}, "redfox", None),
        ({"answer": "[a-z ]+"}, " red fox ", "red fox"),
        ({"answer": ".*"}, "", None),
        ({"answer": ".*"}, " ", None),
        ({"answer": "[A-Z]{2}", "case": "upper"}, "ab", "AB"),
        ({"answer": "[a-z]{2}", "case": "upper"}, "ab", None),
        ({"answer": "\\d+", "arithmetic": True}, "3-5=", None),
        ({"answer": "-?\\d+", "arithmetic": True}, "3-5=", "-2"),
        ({"answer": ".*", "arithmetic": True}, "none", None),
    ],
)
def test_answers_are_cleaned(fields: dict[str, Any], text: str, answer: str | None) -> None:
    assert rule(**fields).clean(text) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3+5=?", "8"),
        ("3 + 5 =", "8"),
        ("3+5", "8"),
        ("3+5=8", "8"),
        ("12-7", "5"),
        ("3x4", "12"),
        ("3X4=", "12"),
        ("3*4", "12"),
        ("3\u00d74", "12"),
        ("8÷2", "4"),
        ("8/2", "4"),
        ("8:2", "4"),
        ("9\u22124", "5"),  # minus
        ("9\u20134", "5"),  # en dash
        ("9—4", "5"),
        ("３＋５＝？", "8"),  # noqa: RUF001 - full width
        ("9－4＝", "5"),  # noqa: RUF001
        ("2+3*4", "14"),
        ("2*3+4*5", "26"),
        ("10-4-3", "3"),
        ("12/3/2", "2"),
        ("12/3*2", "8"),
        ("1-8/4", "-1"),
        ("-3+5", "2"),
        ("-6/2", "-3"),
        ("3-5", "-2"),
        ("5-5", "0"),
        ("007+1", "8"),
        ("7/2", None),
        ("-7/2", None),
        ("1-7/2", None),
        ("7/0", None),
        ("7", None),
        ("7=", None),
        ("=3+5", None),
        ("3+", None),
        ("+3+5", None),
        ("3++5", None),
        ("3+-5", None),
        ("2**9", None),
        ("3.5+1", None),
        ("abc", None),
        ("3+b", None),
        ("", None),
        ("1+1+1+1+1+1+1+1", None),
        ("9999999999+1", None),
        ("__import__('os')", None),
    ],
)
def test_sums_are_worked_out(text: str, value: str | None) -> None:
    assert rule(arithmetic=True).clean(text) == value


@given(
    st.text() | st.text("0123456789+-*/x=? "),
    st.booleans(),
    st.sampled_from([None, "upper", "lower"]),
    st.sampled_from([None, ".*", "[0-9 ]+", "\\w{4}"]),
)
def test_whatever_the_api_reads_is_an_answer_or_none(
    text: str, arithmetic: bool, case: Any, answer: str | None
) -> None:
    cleaned = rule(arithmetic=arithmetic, case=case, answer=answer).clean(text)
    assert cleaned is None or (cleaned and cleaned == cleaned.strip())
