"""What is told to package indexes: dependencies, links, and what a source distribution needs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from importlib.metadata import metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "scrapy_acecaptcha"
SITE = "https://scrapy-acecaptcha.readthedocs.io/en/latest/"
REPOSITORY = "https://github.com/acedatacloud/scrapy-acecaptcha"
# Distributions whose import has another name.
DISTRIBUTIONS = {"PIL": "pillow", "resvg_py": "resvg-py", "zope": "zope-interface"}
OPTIONAL = {"playwright"}  # packages of ours that need an extra as a whole
# Imported only in crawls that use it, whose users have installed it.
BROUGHT = {"scrapy-playwright"}


def declared(*, extras: bool) -> set[str]:
    """Distributions that pyproject.toml names, those of the users' extras too."""
    found: set[str] = set()
    for line in requires("scrapy-acecaptcha") or ():
        requirement = Requirement(line)
        extra = re.findall(r'extra == "(\w+)"', str(requirement.marker))
        if not extra or (extras and extra[0] not in ("test", "bench")):
            found.add(canonicalize_name(requirement.name))
    return found


def imports(file: Path) -> Iterator[tuple[str, bool]]:
    """Other people's packages that a file imports, and whether always, when it is imported."""
    tree = ast.parse(file.read_text())
    unread = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in unread:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
        for name in {name.partition(".")[0] for name in names}:
            if name not in sys.stdlib_module_names and name != "scrapy_acecaptcha":
                yield canonicalize_name(DISTRIBUTIONS.get(name, name)), node in tree.body


FILES = sorted(PACKAGE.rglob("*.py"))


def test_what_is_imported_is_declared() -> None:
    always, sometimes = declared(extras=False), declared(extras=True)
    sometimes |= BROUGHT
    missing = [
        f"{file.relative_to(ROOT)}: {name}"
        for file in FILES
        for name, at_once in imports(file)
        if name not in (always if at_once and file.parent.name not in OPTIONAL else sometimes)
    ]
    assert missing == []


def test_what_is_declared_is_imported() -> None:
    imported = {name for file in FILES for name, _ in imports(file)}
    assert declared(extras=False) <= imported


def test_python_versions_are_those_of_the_workflow() -> None:
    told = metadata("scrapy-acecaptcha").get_all("Classifier") or []
    versions = [name.rpartition(" ")[2] for name in told if re.search(r":: 3\.\d+$", name)]
    workflow = (ROOT / ".github/workflows/test.yml").read_text()
    assert versions == re.findall(r'"(3\.\d+)"', re.findall(r"python: \[(.*)\]", workflow)[0])
    assert versions[-1] == "3.14"
    assert metadata("scrapy-acecaptcha")["Requires-Python"] == ">=3.10"


def test_links_of_the_readme_work_on_package_indexes() -> None:
    links = re.findall(r"\]\((.*?)\)", (ROOT / "README.md").read_text())
    assert [link for link in links if not link.startswith("https://")] == []
    ours = re.compile(
        rf"(?:{REPOSITORY}/blob|{REPOSITORY.replace('github.com', 'raw.githubusercontent.com')})"
        r"/main/([^#]*)"
    )
    files = [match[1] for match in map(ours.match, links) if match]
    docs = [link.removeprefix(SITE) for link in links if link.startswith(SITE)]
    files += [f"docs/{page.removesuffix('.html')}.md" for page in docs]
    assert len(files) > 10
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_urls_name_one_repository() -> None:
    urls = metadata("scrapy-acecaptcha").get_all("Project-URL") or []
    assert len(urls) == 5
    told = dict(url.split(", ") for url in urls)
    assert SITE.startswith(told.pop("Documentation"))
    assert all(url.startswith(REPOSITORY) for url in told.values())
