"""Makes sure that there is a browser for the tests and the demo, and tells how to launch it.

In this order: the Chromium that Playwright has installed, one of the system's, the one that
`playwright install chromium` downloads, and, for root, Debian's package.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from scrapy_acecaptcha.cli.probe_browser import SYSTEM_BROWSERS

INSTALL_SECONDS = 300  # a download that hangs is not waited for
QUIET_ARGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
]
ASK_PLAYWRIGHT = """
from playwright.sync_api import sync_playwright
with sync_playwright() as playwright:
    print(playwright.chromium.executable_path)
"""


@cache
def launch_options() -> dict[str, Any]:
    """Keyword arguments for Playwright's `chromium.launch()`.

    :raises RuntimeError: there is no browser
    """
    path = find_browser()
    if path is None:
        raise RuntimeError("There is no browser. Run `python scripts/browser.py`")
    # Chromium's sandbox refuses to work for root.
    return {"executable_path": path, "args": QUIET_ARGS + ["--no-sandbox"] * is_root()}


def find_browser() -> str | None:
    """Path of the first browser that can be started."""
    return next((path for path in _candidates() if path and _starts(path)), None)


def _candidates() -> Iterator[str | None]:
    # Asked in a process of its own: the sync API does not work inside an event loop.
    yield _output(sys.executable, "-c", ASK_PLAYWRIGHT)
    yield from map(shutil.which, SYSTEM_BROWSERS)


def _starts(path: str) -> bool:
    """Whether the program at *path* is there, with all the libraries that it needs."""
    return _output(path, "--version") is not None


def _output(*command: str) -> str | None:
    """What a command prints; None if it fails."""
    try:
        done = subprocess.run(  # noqa: S603
            command, capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def is_root() -> bool:
    """Whether packages of the system can be installed."""
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _install_playwrights() -> str | None:
    return _run(
        "playwright install chromium", sys.executable, "-m", "playwright", "install", "chromium"
    )


def _install_debians() -> str | None:
    if not is_root() or shutil.which("apt-get") is None:
        return "apt-get install chromium: needs root on Debian"
    os.environ["DEBIAN_FRONTEND"] = "noninteractive"
    return _run("apt-get update", "apt-get", "-q", "update") or _run(
        "apt-get install chromium",
        *("apt-get", "-q", "install", "-y", "--no-install-recommends", "chromium"),
    )


def _run(name: str, *command: str) -> str | None:
    """Run a command; return what is to be said if it failed."""
    print(f"No browser yet: {name} ...", flush=True)
    try:
        done = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    except OSError as error:
        return f"{name}: {error}"
    try:
        said = done.communicate(timeout=INSTALL_SECONDS)[0].strip().splitlines()
    except subprocess.TimeoutExpired:
        os.killpg(done.pid, signal.SIGKILL)  # the download runs in a process below
        done.wait()
        return f"{name}: not done after {INSTALL_SECONDS} s"
    if done.returncode == 0:
        return None
    reasons = [line.strip() for line in said if "error" in line.lower()] or said or ["failed"]
    return f"{name}: {reasons[0]}"


def main() -> int:
    """Find or install a browser; 0 if there is one in the end."""
    failures: list[str] = []
    installers: tuple[Callable[[], str | None], ...] = (_install_playwrights, _install_debians)
    path = find_browser()
    for install in installers:
        if path is None:
            failures += filter(None, [install()])
            path = find_browser()
    if path is None:
        print(
            "No Chromium can be had, which the tests and the demo use. Install Chromium or "
            f"Google Chrome and try again ({'; '.join(failures) or 'none of them starts'})",
            file=sys.stderr,
        )
        return 1
    print(f"Browser: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
