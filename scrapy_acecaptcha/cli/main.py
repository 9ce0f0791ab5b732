"""The ``acecaptcha`` command.

A subcommand is a row of the table at the end of this file. It returns the exit code, or raises: an
:class:`AceCaptchaError` ends the program with one line on stderr.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import shlex
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import NamedTuple, NoReturn

from scrapy_acecaptcha.cli import probe
from scrapy_acecaptcha.errors import (
    AceCaptchaError,
    ApiAuthError,
    ApiBalanceError,
    SettingsError,
)
from scrapy_acecaptcha.page.images import readable_image
from scrapy_acecaptcha.recognition.client import AceCaptchaClient
from scrapy_acecaptcha.recognition.waits import in_thread
from scrapy_acecaptcha.report.export import export_images
from scrapy_acecaptcha.report.report import write_report
from scrapy_acecaptcha.solver import Solver

PROGRAM = "acecaptcha"
DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; 130 is what shells report for Ctrl-C."""

_BAR_FROM = 10  # files
_TOKEN = "ACEDATACLOUD_API_TOKEN"  # noqa: S105 - the name of an environment variable

# A PNG of four digits, for `check`: no call of the API asks about the token alone.
_SAMPLE = base64.b64decode(
    """
    iVBORw0KGgoAAAANSUhEUgAAADwAAAAYAQAAAACOuqP/AAAAgElEQVR42o2OsQnCUBgG7/+xFGztdAwLMegELhTiJq
    6QESQ2dskWeY3wREFJnvks4gC56qrjTADwcP5MElm+rmhwG75lzwWUnu2uWMQZBvuiwUlzVYDTEfrhhIOO5OC8rDx0
    Y3A5lgNw3+AQYHUDnd/tVnV0SAEAZZ/sqjrahOcfO7Yw2OFnO4AAAAAASUVORK5CYII=
    """
)

_Run = Callable[[argparse.Namespace], int]


class _Command(NamedTuple):
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: _Run


def _no_arguments(parser: argparse.ArgumentParser) -> None:
    """For commands that take none."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 bad usage, 130 Ctrl-C."""
    try:
        options = _parser().parse_args(argv)
        code = _COMMANDS[options.command].run(options)
        sys.stdout.flush()
    except SystemExit as exit_:  # argparse: --help, or bad usage
        return int(exit_.code or DONE)
    except SettingsError as error:
        _complain(error)
        return BAD_USAGE
    except AceCaptchaError as error:
        _complain(error)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `acecaptcha solve ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(BAD_USAGE, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Reads plain text captchas with Ace Data Cloud's recognition API.",
        epilog="The token comes from the environment variable ACEDATACLOUD_API_TOKEN.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (summary, add_arguments, _) in _COMMANDS.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary}.")
        add_arguments(subparser)
    return parser


def _complain(problem: object) -> None:
    """Write one line to stderr."""
    print(f"{PROGRAM}: {' '.join(str(problem).split())}", file=sys.stderr)


# ---------------------------------------------------------------------------------------- solve


def _solve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="PNG, JPEG, GIF, WebP, BMP or SVG")
    parser.add_argument("--json", action="store_true", help="print one JSON object a file")


def _solve(options: argparse.Namespace) -> int:
    failed = False
    with Solver() as solver:
        for file, future in _progress(_readings(solver, options.files), len(options.files)):
            try:
                text = future.result()
            except (ApiAuthError, ApiBalanceError):
                raise  # the other files would meet the same
            except (AceCaptchaError, OSError) as error:
                problem = getattr(error, "strerror", None) or str(error)
                failed = True
                _complain(f"{file}: {problem}")
                if options.json:
                    print(json.dumps({"file": file, "error": problem}), flush=True)
            else:
                line = (
                    json.dumps({"file": file, "text": text}) if options.json else f"{file}\t{text}"
                )
                print(line, flush=True)
    return FAILED if failed else DONE


def _readings(solver: Solver, files: Iterable[str]) -> Iterator[tuple[str, Future[str]]]:
    """Yield the files in order, each with its text to come; a window of them is under way."""
    under_way: deque[tuple[str, Future[str]]] = deque()
    for file in files:
        under_way.append((file, _start_reading(solver, file)))
        if len(under_way) == 2 * solver.client.concurrency:
            yield under_way.popleft()
    yield from under_way


def _start_reading(solver: Solver, file: str) -> Future[str]:
    try:
        image = readable_image(Path(file).read_bytes())
        return in_thread(lambda: solver.read(image))
    except (AceCaptchaError, OSError) as error:
        failure: Future[str] = Future()
        failure.set_exception(error)
        return failure


def _progress(
    readings: Iterable[tuple[str, Future[str]]], total: int
) -> Iterator[tuple[str, Future[str]]]:
    """Pass the readings on; with many of them, a terminal and tqdm, under a progress bar."""
    if total < _BAR_FROM or not sys.stderr.isatty():
        yield from readings
        return
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an extra
    except ImportError:
        yield from readings
        return
    with tqdm(total=total, unit="file", file=sys.stderr, dynamic_ncols=True) as bar:
        for file, future in readings:
            wait((future,))
            bar.clear()  # what the caller prints goes above the bar
            yield file, future
            bar.update()


# ---------------------------------------------------------------------------------------- check


def _check(options: argparse.Namespace) -> int:
    print("Reading a sample image, which costs one API call ...", flush=True)
    with AceCaptchaClient(retries=1) as client:
        text = client.recognize(_SAMPLE)
        print(f"The token is good: {client.base_url} read {text!r}")
    return DONE


# --------------------------------------------------------------------------------------- report


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("journal", metavar="JOURNAL", help="the file that ACECAPTCHA_JOURNAL names")
    parser.add_argument(
        "-o", "--output", metavar="FILE", default="report.html", help="default: %(default)s"
    )
    parser.add_argument(
        "--price", type=_amount, help="of one charged call: the report tells what was spent"
    )
    parser.add_argument(
        "--pages",
        type=_amount,
        help="that the crawls brought home, for the cost per 1,000 of them "
        "(default: one for each captcha solved)",
    )


def _amount(text: str) -> float:
    try:
        amount = float(text)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0 or more")
    return amount


def _report(options: argparse.Namespace) -> int:
    pages = None if options.pages is None else int(options.pages)
    calls = write_report(options.journal, options.output, price=options.price, pages=pages)
    print(f"{options.output}: {calls:,} calls")
    return DONE


# --------------------------------------------------------------------------------------- export


def _export_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "journal",
        metavar="JOURNAL",
        nargs="?",
        default="acecaptcha.db",
        help="the file that ACECAPTCHA_JOURNAL names (default: %(default)s)",
    )
    parser.add_argument("directory", metavar="DIR", help="made where it is missing")
    parser.add_argument(
        "--refused",
        action="store_true",
        help="also write images whose text was refused, into DIR/refused, to be named by hand",
    )


def _export(options: argparse.Namespace) -> int:
    accepted, refused = export_images(options.journal, options.directory, refused=options.refused)
    more = f", {refused:,} in {options.directory}/refused" if options.refused else ""
    print(f"{options.directory}: {accepted:,} images{more}")
    return DONE


# -------------------------------------------------------------------------------------- sandbox


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to 65535")
    return int(text)


def _failure(text: str) -> tuple[str, float]:
    code, _, probability = text.rpartition(":")
    try:
        return code, float(probability)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not CODE:PROBABILITY, for instance too_many_requests:0.2"
        ) from None


def _sandbox_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--port", type=_port, default=8765, help="0 for a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--latency", type=float, default=0.0, metavar="SECONDS", help="how long a call takes"
    )
    parser.add_argument(
        "--fail",
        type=_failure,
        nargs="+",
        action="extend",
        default=[],
        metavar="CODE:PROBABILITY",
        help="answer with this API error that often, say too_many_requests:0.2; task answers late",
    )
    parser.add_argument(
        "--token",
        nargs="?",
        const="",
        help="accept this token only (default: any); without a value that of the environment "
        f"variable {_TOKEN}, which other users of the machine cannot see",
    )


def _sandbox(options: argparse.Namespace) -> int:
    token = options.token
    if token == "":
        token = os.environ.get(_TOKEN)
        if not token:
            raise SettingsError(f"--token without a value takes that of {_TOKEN}, which is not set")
    try:
        from scrapy_acecaptcha.recognition.sandbox import Sandbox  # noqa: PLC0415 - an extra
    except ImportError as error:
        _complain(error)
        return FAILED
    # Nobody needs to hear of the calls that Ctrl-C cuts off.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    server = Sandbox(options.port, latency=options.latency, fail=dict(options.fail), token=token)
    try:
        with server:
            print(f"Listening on {server.url}, Ctrl-C to stop. To point clients here:")
            for name, value in server.environ.items():
                if name != _TOKEN or options.token != "":  # else it is there already
                    print(f"  export {name}={shlex.quote(value)}", flush=True)
            threading.Event().wait()  # for Ctrl-C
    except OSError as error:
        _complain(f"port {options.port} of 127.0.0.1: {error.strerror}; choose one with --port")
        return FAILED
    return DONE


_COMMANDS = {
    "solve": _Command("print what captcha images say, as FILE<tab>TEXT", _solve_arguments, _solve),
    "check": _Command("tell whether the token is good; costs one API call", _no_arguments, _check),
    "probe": _Command(
        "find the captcha of a page, or try a rule on it, step by step",
        probe.add_arguments,
        probe.run,
    ),
    "report": _Command("make a page of a journal", _report_arguments, _report),
    "export": _Command(
        "write the images of a journal into a folder, named by the answers that sites accepted",
        _export_arguments,
        _export,
    ),
    "sandbox": _Command(
        "serve a local stand-in for the API, errors included, that really reads images",
        _sandbox_arguments,
        _sandbox,
    ),
}
