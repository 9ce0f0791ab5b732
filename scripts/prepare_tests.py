"""Gets what the tests need beside Python: a browser and redis-server.

Run as ``python -m scripts.prepare_tests``, by `make test`; pytest itself installs nothing. What
cannot be had is no failure here: the tests that need it are skipped, except in CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from scripts import browser


def in_ci() -> bool:
    """Whether this is a CI run, where no test may be skipped because a program is missing."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def find_redis() -> str | None:
    """Path of redis-server."""
    return shutil.which("redis-server")


def install_redis() -> bool:
    """Install Debian's package, for root; return whether there is a redis-server in the end."""
    if browser.is_root() and shutil.which("apt-get"):
        # Debian's package starts a server of its own, which no test needs.
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        for command in (["update"], ["install", "-y", "--no-install-recommends", "redis-server"]):
            print(f"No redis-server yet: apt-get {' '.join(command)} ...", flush=True)
            subprocess.run(["apt-get", "-qq", *command], env=environ, check=False)  # noqa: S603, S607
    return find_redis() is not None


def main() -> int:
    """Return 0 if the tests can run: all of them in CI, those whose needs are met elsewhere."""
    has_browser = browser.main() == 0
    has_redis = find_redis() is not None or install_redis()
    if not has_redis:
        print("No redis-server can be had: install it (Debian: redis-server)", file=sys.stderr)
    if has_browser and has_redis:
        return 0
    if in_ci():
        return 1
    print("The tests that need what is missing are going to be skipped.", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
