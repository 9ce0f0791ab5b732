"""The shape of the package: sizes, the direction of imports, and what works without extras."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "scrapy_acecaptcha"
FILES = sorted(PACKAGE.rglob("*.py"))

MOST_LINES = 420  # of a file
MOST_LINES_OF_A_FUNCTION = 45
MOST_BRANCHES = 15  # of a function

# What is above the limits today. Nothing is to be added, and who mends one takes it out.
LONG_FILES: set[str] = set()
LARGE_FUNCTIONS: set[str] = set()

# Imports run down this list, or stay in one line of it.
LAYERS = [
    ["__main__", "cli"],
    ["__init__", "addon"],
    ["crawl"],
    ["playwright"],
    ["solver", "report"],
    ["recognition", "detect"],
    ["page"],
    ["flow", "verdict"],
    ["rule_book", "rules", "arithmetic"],
    ["selectors", "errors", "signals", "hosts"],
]


def module_of(file: Path) -> str:
    """The part of the package that a file belongs to: a folder, or a file at the top."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}{node.name}", node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def branches(function: ast.AST) -> int:
    """Decisions in a function: if, elif, loops, except, case, conditional expressions, and/or."""
    kinds = (ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)
    count = 0
    for node in ast.walk(function):
        if isinstance(node, (*kinds, ast.match_case)):
            count += 1
        elif isinstance(node, ast.BoolOp):
            count += len(node.values) - 1
        elif isinstance(node, ast.comprehension):
            count += 1 + len(node.ifs)
    return count


def imported_at_once(tree: ast.Module) -> Iterator[str]:
    """Modules that are imported with the file, not in a function and not for types only."""
    pending: list[ast.AST] = list(tree.body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        pending += ast.iter_child_nodes(node)


def check_exceptions(found: Mapping[str, object], excepted: set[str]) -> None:
    """Every one that is above a limit is an exception, and no other is."""
    assert {name: size for name, size in found.items() if name not in excepted} == {}
    assert excepted - set(found) == set(), "no exception is needed any more"


def test_files_are_short() -> None:
    long = {
        str(file.relative_to(PACKAGE)): lines
        for file in FILES
        if (lines := len(file.read_text().splitlines())) > MOST_LINES
    }
    check_exceptions(long, LONG_FILES)


def test_functions_fit_a_screen() -> None:
    large = {}
    for file in FILES:
        for name, node in functions(ast.parse(file.read_text())):
            assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION or branches(node) > MOST_BRANCHES:
                where = f"{file.relative_to(PACKAGE)}::{name}"
                large[where] = f"{lines} lines, {branches(node)} branches"
    check_exceptions(large, LARGE_FUNCTIONS)


def test_every_module_has_its_layer() -> None:
    layered = {name for layer in LAYERS for name in layer}
    assert {module_of(file) for file in FILES} <= layered


def test_imports_run_down() -> None:
    level = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
    upward = set()
    for file in FILES:
        importer = module_of(file)
        for name in imported_at_once(ast.parse(file.read_text())):
            package, _, rest = name.partition(".")
            imported = rest.partition(".")[0]
            if package != "scrapy_acecaptcha" or imported not in level:
                continue
            if level[imported] < level[importer]:
                upward.add((str(file.relative_to(PACKAGE)), imported))
    assert upward == set()


def test_playwright_is_imported_by_its_front_end_only() -> None:
    importers = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        if module_of(file) != "playwright"
        for name in imported_at_once(ast.parse(file.read_text()))
        if name.split(".")[0] == "playwright"
    }
    assert importers == set()


def test_the_playwright_front_end_imports_no_scrapy() -> None:
    importers = {
        str(file.relative_to(PACKAGE))
        for file in FILES
        if module_of(file) == "playwright"
        for name in imported_at_once(ast.parse(file.read_text()))
        if name.split(".")[0] == "scrapy"
    }
    assert importers == set()


WITHOUT_EXTRAS = """
import importlib.abc, sys

class NoExtras(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {extras}:
            raise ImportError(f"{{name}} is an extra")

sys.meta_path.insert(0, NoExtras())
import scrapy_acecaptcha
for name in scrapy_acecaptcha.__all__:
    getattr(scrapy_acecaptcha, name)
import scrapy_acecaptcha.addon, scrapy_acecaptcha.cli.main, scrapy_acecaptcha.signals
"""
EXTRAS = ("playwright", "ddddocr", "flask", "waitress", "PIL", "resvg_py", "redis", "tqdm")


def test_nothing_needs_an_extra_to_be_imported() -> None:
    code = WITHOUT_EXTRAS.format(extras=set(EXTRAS))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
