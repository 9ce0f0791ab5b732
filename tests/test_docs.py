"""Every code block of README and docs runs."""

from __future__ import annotations

import argparse
import ast
import dataclasses
import re
import textwrap
from pathlib import Path
from typing import Any, get_args

import pytest
import scrapy
from pytest_twisted import ensureDeferred
from scrapy import Request

from scrapy_acecaptcha import signals
from scrapy_acecaptcha.cli.main import _parser
from scrapy_acecaptcha.flow import Outcome
from scrapy_acecaptcha.rule_book import RuleBook
from scrapy_acecaptcha.rules import CaptchaRule
from scripts import architecture_svg
from tests.crawling import run_crawl
from tests.site import CaptchaSite
from tests.test_structure import LAYERS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks() -> list[Any]:
    return [
        pytest.param(block, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.S))
    ]


def commands() -> list[Any]:
    """Lines of blocks indented by four spaces, and those of ``sh`` fences, without comments."""
    found = []
    for page in PAGES:
        text = page.read_text()
        lines = re.findall(r"^    (\S.*)$", re.sub(r"```.*?```", "", text, flags=re.S), re.M)
        for block in re.findall(r"```sh\n(.*?)```", text, re.S):
            lines += textwrap.dedent(block).splitlines()
        known = re.compile(r"(make|pip|scrapy|acecaptcha|python) ")
        found += [
            (page.name, line.partition(" #")[0].strip(" &")) for line in lines if known.match(line)
        ]
    return found


@pytest.mark.parametrize("block", python_blocks())
def test_python_blocks_run(block: str) -> None:
    namespace: dict[str, Any] = {"scrapy": scrapy}
    exec(compile(block, "block", "exec"), namespace)
    if "ACECAPTCHA_RULES" in namespace:
        assert len(RuleBook(namespace["ACECAPTCHA_RULES"]))


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_exist(page: str, command: str) -> None:
    if command.startswith("make "):
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(command.split()[1:]) <= set(targets)
    elif command.startswith("acecaptcha "):
        _parser().parse_args(_words(command)[1:])
    elif command.startswith("pip "):
        for extra in re.findall(r"\[(\w+)\]", command):
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.M)
    elif "ACECAPTCHA_RULES=" in command:
        assert len(RuleBook(re.findall(r"ACECAPTCHA_RULES='(.*?)'", command)[0]))


def _words(command: str) -> list[str]:
    import shlex

    return shlex.split(command)


def recipes() -> list[Any]:
    text = (ROOT / "docs" / "cookbook.md").read_text()
    found = re.findall(r"<!-- site: (\w+)(.*?) -->\n```python\n(.*?)```", text, re.S)
    return [pytest.param(*recipe, id=recipe[0] + str(i)) for i, recipe in enumerate(found)]


@pytest.mark.parametrize(("scenario", "how", "block"), recipes())
@ensureDeferred
async def test_recipes_work_on_a_site_of_their_kind(
    site: CaptchaSite, settings: Any, scenario: str, how: str, block: str
) -> None:
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    ((_, rule),) = namespace["ACECAPTCHA_RULES"].items()
    start = [Request(f"{site.url}/{scenario}/record/{i}") for i in range(5)]
    config = settings("", rule, CONCURRENT_REQUESTS=1 if "one at a time" in how else 8)
    crawl = await run_crawl(start, config)
    assert crawl.errors == []
    if scenario == "pdf":
        assert [page.body[:4] for page in crawl.pages] == [b"%PDF"] * 5
    else:
        assert crawl.records == [f"Record {i}" for i in range(5)]


def test_every_field_of_a_rule_is_explained_in_one_table() -> None:
    table = (ROOT / "docs" / "rule.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.M)
    named = [name for row in rows for name in re.findall(r"\w+", row)]
    assert named == [field.name for field in dataclasses.fields(CaptchaRule)]


def named_in_settings(section: str) -> set[str]:
    """What the tables in a section of docs/settings.md explain, the whole page's without one."""
    page = (ROOT / "docs" / "settings.md").read_text()
    text = page.partition(f"\n## {section}\n")[2].partition("\n## ")[0] if section else page
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", text, re.M)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def sources() -> list[str]:
    return [file.read_text() for file in sorted((ROOT / "scrapy_acecaptcha").rglob("*.py"))]


def test_every_setting_is_explained() -> None:
    used = {name for text in sources() for name in re.findall(r"\bACECAPTCHA_[A-Z_]*[A-Z]", text)}
    explained = {name for name in named_in_settings("") if name.startswith("ACECAPTCHA_")}
    assert explained == used


def test_every_stat_is_explained() -> None:
    counted = {outcome for outcome in get_args(Outcome) if outcome != "accepted"}
    for text in sources():
        for call in ast.walk(ast.parse(text)):
            if not isinstance(call, ast.Call) or not call.args:
                continue
            if re.search(r"\.(_?count|_add)$", ast.unparse(call.func)):
                counted |= {
                    node.value
                    for node in ast.walk(call.args[0])
                    if isinstance(node, ast.Constant) and isinstance(node.value, str)
                }
    assert named_in_settings("Stats") == {name.replace("/", "/<code>") for name in counted}


def test_every_closing_reason_is_explained() -> None:
    source = (ROOT / "scrapy_acecaptcha" / "crawl" / "failure.py").read_text()
    reasons = {f"acecaptcha_{reason}" for reason in re.findall(r' reason = "(\w+)"', source)}
    assert named_in_settings("Closing reasons") == reasons
    assert reasons <= set(re.findall(r"\w+", (ROOT / "docs/failure-and-resume.md").read_text()))


def test_every_signal_is_explained() -> None:
    assert named_in_settings("Signals") == {name for name in vars(signals) if name[0] != "_"}


def test_every_option_of_the_command_line_is_explained() -> None:
    page = (ROOT / "docs" / "cli.md").read_text()
    commands = next(a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    for name, parser in commands.choices.items():
        section = page.partition(f"## acecaptcha {name}")[2].partition("\n## ")[0]
        assert section, name
        options = {option for a in parser._actions for option in a.option_strings} - {
            "-h",
            "--help",
        }
        assert options <= set(re.findall(r"--?[a-z][a-z-]*", section)), name


def test_every_file_is_in_the_plan() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    package = ROOT / "scrapy_acecaptcha"
    planned: set[str] = set()
    for table in re.findall(r"(?:^\|.*\n)+", page, re.M):
        folder = re.match(r"\| `(\w+/)`: ", table)
        rows = re.findall(r"^\| (.*?) \|", table, re.M)
        files = [name for row in rows for name in re.findall(r"`([\w/]+\.py)`", row)]
        planned |= {(folder[1] if folder else "") + name for name in files}
    existing = {file.relative_to(package).as_posix() for file in package.rglob("*.py")}
    assert planned == {name for name in existing if not name.endswith("__init__.py")}


def test_the_picture_of_the_architecture_is_that_of_the_imports() -> None:
    assert (ROOT / "docs" / "architecture.svg").read_text() == architecture_svg.draw()
    drawn = [sorted(modules) for _, modules in architecture_svg.LAYERS]
    assert drawn == [sorted(modules) for modules in LAYERS]


def test_every_promise_has_its_test() -> None:
    promised = re.findall(
        r"`((?:\w+/)?test_\w+\.py)(?:::(\w+))?`", (ROOT / "docs/reliability.md").read_text()
    )
    assert len(promised) > 20
    for file, name in promised:
        source = (ROOT / "tests" / file).read_text()
        assert not name or f"def {name}(" in source, f"{file}::{name}"
