"""What the probe tells: its steps, its candidates, the rule ready to paste."""

from __future__ import annotations

import dataclasses
import json
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

import requests
from scrapy.exceptions import DownloadConnectionRefusedError, IgnoreRequest

from scrapy_acecaptcha.detect.find import Candidate
from scrapy_acecaptcha.errors import AceCaptchaError
from scrapy_acecaptcha.page.forms import Form, Submission
from scrapy_acecaptcha.rules import CaptchaRule


class Report:
    """The lines on stdout."""

    has_failed = False

    def ok(self, step: str, detail: str) -> None:
        self._line("ok", step, detail)

    def skip(self, step: str, detail: str) -> None:
        self._line("skipped", step, detail)

    def fail(self, step: str, detail: object) -> None:
        self.has_failed = True
        self._line("failed", step, " ".join(str(detail).split()))

    def more(self, text: str, indent: int = 18) -> None:
        margin = " " * indent
        print(textwrap.fill(text, 100, initial_indent=margin, subsequent_indent=margin))

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Tell of an error as the failure of the step that it names."""
        try:
            yield
        except StepFailed as failure:
            self.fail(failure.step, failure.reason)

    def _line(self, verdict: str, step: str, detail: str) -> None:
        print(f"{verdict:<9}{step:<9}{detail}", flush=True)


class StepFailed(Exception):
    """No step after this one makes sense."""

    def __init__(self, step: str, reason: object) -> None:
        super().__init__(step, reason)
        self.step = step
        self.reason = reason


_FAILURES = (
    AceCaptchaError,
    IgnoreRequest,
    DownloadConnectionRefusedError,
    requests.RequestException,
    OSError,
)


@contextmanager
def step(name: str) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise StepFailed(name, error) from error


def tell_candidate(place: int, candidate: Candidate, report: Report) -> None:
    field = f"field {candidate.input}" if candidate.input else "no field"
    form = f"in {candidate.form}" if candidate.form else "in no form"
    report.more(f"{place}. {candidate.confidence:.2f}  {candidate.image}, {field} {form}")
    report.more("; ".join(candidate.reasons), 21)


def tell_rule(rule: CaptchaRule, url: str) -> None:
    """Print the rule ready to paste."""
    default = CaptchaRule(image="-")
    lines = [
        f"        {json.dumps(f.name)}: {_as_python(getattr(rule, f.name))},"
        for f in dataclasses.fields(rule)
        if getattr(rule, f.name) != getattr(default, f.name)
    ]
    host = urlsplit(url).netloc.rpartition("@")[2]
    print("\nACECAPTCHA_RULES = {", f"    {json.dumps(host)}: {{", sep="\n")
    print(*lines, "    },", "}", "", sep="\n", flush=True)


def _as_python(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_as_python(k)}: {_as_python(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str) and '"' not in value:
        return json.dumps(value, ensure_ascii=False)  # in the quotes that most people write
    return repr(value)


def tell_form(form: Form, sent: Submission, report: Report) -> None:
    report.ok(
        "form", f"{sent.method} {sent.url.partition('?')[0]}, the answer as {form.answer_name!r}"
    )
    body = urlsplit(sent.url).query if sent.method == "GET" else sent.body.decode("latin-1")
    if sent.method == "POST" and "urlencoded" not in sent.headers.get("Content-Type", ""):
        report.more(f"{sent.headers.get('Content-Type')}, {len(sent.body):,} bytes")
        return
    for key, value in parse_qsl(body, keep_blank_values=True, encoding=form.encoding):
        report.more(f"{key} = {value if len(value) <= 60 else value[:57] + '...'}")


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
