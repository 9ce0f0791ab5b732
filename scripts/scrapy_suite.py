"""Run Scrapy's own test suite with and without the middleware in every crawler, and compare.

    python -m scripts.scrapy_suite [--reactor asyncio|none] [--source DIR] [TESTS...]

The suite is that of the installed Scrapy: its source distribution from PyPI, without the tests that
need the internet. It runs three times: as it is, with a rule for a host that no test uses, and with
a rule for every host that one uses. Exit code 1 if any test came out worse than without a rule.

Its tests need what Scrapy's tox.ini names; those whose needs are not met fail in all three runs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import scrapy

ROOT = Path(__file__).parent.parent
HOST = re.compile(r"https?://([A-Za-z0-9.-]+\.[a-z]+|localhost|127\.0\.0\.1)")
IMAGE = "img#captcha-that-no-page-of-theirs-shows"

# A pytest plugin: the tests make crawlers of their own settings, so the defaults are changed.
PLUGIN = """
import os

from scrapy.settings import default_settings

from scrapy_acecaptcha import AceCaptchaMiddleware

default_settings.DOWNLOADER_MIDDLEWARES_BASE[AceCaptchaMiddleware] = 585
default_settings.ACECAPTCHA_TOKEN = "unused"
default_settings.ACECAPTCHA_API_BASE_URL = "http://127.0.0.1:9"
default_settings.ACECAPTCHA_RULES = {
    host: {"image": os.environ["SUITE_IMAGE"]} for host in os.environ["SUITE_HOSTS"].split()
}
"""


def fetch_source(to: Path) -> Path:
    """Download and unpack the source of the installed Scrapy; return its folder."""
    wanted = f"scrapy=={scrapy.__version__}"
    options = ["--no-deps", "--no-binary", "scrapy", "--dest", str(to)]
    command = [sys.executable, "-m", "pip", "download", wanted, *options]
    subprocess.run(command, check=True)  # noqa: S603 - nobody's input
    (archive,) = to.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(to, filter="data")
    return to / archive.name.removesuffix(".tar.gz")


def run(suite: Path, hosts: list[str], args: argparse.Namespace) -> dict[str, str]:
    """Run the tests with rules for *hosts*, none for no middleware; return each one's outcome."""
    report = suite / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", f"--reactor={args.reactor}", "-q"]
    command += ["-m", "not requires_internet", "-p", "no:cacheprovider", f"--junitxml={report}"]
    if args.reactor == "none":
        command += ["-p", "no:twisted"]
    if hosts:
        (suite / "acecaptcha_everywhere.py").write_text(PLUGIN)
        command += ["-p", "acecaptcha_everywhere"]
    path = os.pathsep.join([str(suite), str(ROOT)])
    environment = {"SUITE_HOSTS": " ".join(hosts), "SUITE_IMAGE": IMAGE, "PYTHONPATH": path}
    done = subprocess.run(  # noqa: S603 - its own user's
        [*command, *args.pytest, *args.tests],
        cwd=suite,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode not in {0, 1}:  # 1: tests failed
        sys.exit(f"pytest could not run the suite (exit code {done.returncode}), see above")
    return outcomes(report)


def outcomes(report: Path) -> dict[str, str]:
    """What a JUnit report says of each test: passed, skipped, failure or error."""
    found = {}
    for case in ET.parse(report).iter("testcase"):  # noqa: S314 - pytest's
        kinds = [child.tag for child in case if child.tag in {"skipped", "failure", "error"}]
        found[f"{case.get('classname')}::{case.get('name')}"] = kinds[0] if kinds else "passed"
    return found


def hosts_of(suite: Path) -> list[str]:
    """All hosts that the tests name."""
    texts = (file.read_text(errors="replace") for file in (suite / "tests").rglob("*.py"))
    return sorted({host.lower() for text in texts for host in HOST.findall(text)})


def main() -> int:
    """Compare, and say which tests came out otherwise."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--reactor", choices=["asyncio", "default", "none"], default="asyncio")
    parser.add_argument("--source", type=Path, help="Scrapy's unpacked source, to download none")
    parser.add_argument("--pytest", action="append", default=[], help="an option for pytest")
    parser.add_argument("tests", nargs="*", default=["tests"], help="files of its suite")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = args.source or fetch_source(Path(folder))
        suite = Path(folder) / "suite"
        # Without its package: what is tested is the one that is installed.
        shutil.copytree(source, suite, ignore=lambda at, _: ["scrapy"] * (Path(at) == source))
        plain = run(suite, [], args)
        differing = 0
        for name, hosts in (("no test's host", ["no-test.invalid"]), ("all", hosts_of(suite))):
            ruled = run(suite, hosts, args)
            worse = [test for test, outcome in plain.items() if ruled.get(test) != outcome]
            print(f"{len(plain)} tests; with a rule for {name}: {len(worse)} come out otherwise")
            for test in worse:
                print(f"  {test}: {plain[test]}, with the rule {ruled.get(test, 'missing')}")
            differing += len(worse)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
