"""The ``acecaptcha`` command.

A subcommand is a function under :func:`command`. It returns the exit code, or raises: an
:class:`AceCaptchaError` ends the program with one line on stderr.
"""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from scrapy_acecaptcha.client import AceCaptchaClient
from scrapy_acecaptcha.errors import (
    AceCaptchaError,
    ApiAuthError,
    ApiBalanceError,
    SettingsError,
)
from scrapy_acecaptcha.images import readable_image

PROGRAM = "acecaptcha"
DONE, FAILED, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit codes; 130 is what shells report for Ctrl-C."""

_BAR_FROM = 10  # files
_BAR_WIDTH = 30  # characters


_Run = Callable[[argparse.Namespace], int]


class _Argument:
    """What ``add_argument`` is to be called with."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.names = names
        self.options = options


class _Command(NamedTuple):
    run: _Run
    summary: str
    arguments: tuple[_Argument, ...]


_commands: dict[str, _Command] = {}


def command(summary: str, *arguments: _Argument) -> Callable[[_Run], _Run]:
    """Make a function the subcommand of the same name."""

    def register(run: _Run) -> _Run:
        _commands[run.__name__] = _Command(run, summary, arguments)
        return run

    return register


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 bad usage, 130 Ctrl-C."""
    try:
        options = _parser().parse_args(argv)
        code = _commands[options.command].run(options)
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
    for name, (_, summary, arguments) in _commands.items():
        subparser = subparsers.add_parser(name, help=summary, description=f"{summary}.")
        for argument in arguments:
            subparser.add_argument(*argument.names, **argument.options)
    return parser


def _complain(problem: object) -> None:
    """Write one line to stderr."""
    print(f"{PROGRAM}: {' '.join(str(problem).split())}", file=sys.stderr)


# ---------------------------------------------------------------------------------------- solve


@command(
    "print what captcha images say, as FILE<tab>TEXT",
    _Argument("files", nargs="+", metavar="FILE", help="PNG, JPEG, GIF, WebP, BMP or SVG"),
)
def solve(options: argparse.Namespace) -> int:
    failed = False
    with AceCaptchaClient() as client:
        for file, future in _progress(_readings(client, options.files), len(options.files)):
            try:
                text = future.result()
            except (ApiAuthError, ApiBalanceError):
                raise  # the other files would meet the same
            except (AceCaptchaError, OSError) as error:
                _complain(f"{file}: {getattr(error, 'strerror', None) or error}")
                failed = True
            else:
                print(file, text, sep="\t", flush=True)
    return FAILED if failed else DONE


def _readings(client: AceCaptchaClient, files: Iterable[str]) -> Iterator[tuple[str, Future[str]]]:
    """Yield the files in order, each with its text to come; a window of them is under way."""
    under_way: deque[tuple[str, Future[str]]] = deque()
    for file in files:
        under_way.append((file, _start_reading(client, file)))
        if len(under_way) == 2 * client.concurrency:
            yield under_way.popleft()
    yield from under_way


def _start_reading(client: AceCaptchaClient, file: str) -> Future[str]:
    try:
        return client.submit(readable_image(Path(file).read_bytes()))
    except (AceCaptchaError, OSError) as error:
        failure: Future[str] = Future()
        failure.set_exception(error)
        return failure


def _progress(
    readings: Iterable[tuple[str, Future[str]]], total: int
) -> Iterator[tuple[str, Future[str]]]:
    """Pass the readings on; with many of them and a terminal, draw a bar under what is printed."""
    if total < _BAR_FROM or not sys.stderr.isatty():
        yield from readings
        return
    try:
        for done, (file, future) in enumerate(readings):
            bar = "#" * (_BAR_WIDTH * done // total)
            _draw(f"[{bar:<{_BAR_WIDTH}}] {done}/{total}")
            wait((future,))
            _draw("")
            yield file, future
    finally:
        _draw("")


def _draw(line: str) -> None:
    print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


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


@command(
    "serve a local stand-in for the API, errors included, that really reads images",
    _Argument("--port", type=_port, default=8765, help="0 for a free one (default: %(default)s)"),
    _Argument(
        "--latency", type=float, default=0.0, metavar="SECONDS", help="how long a call takes"
    ),
    _Argument(
        "--fail",
        type=_failure,
        nargs="+",
        action="extend",
        default=[],
        metavar="CODE:PROBABILITY",
        help="answer with this API error that often, say too_many_requests:0.2; task answers late",
    ),
    _Argument("--token", help="accept this token only (default: any)"),
)
def sandbox(options: argparse.Namespace) -> int:
    try:
        from scrapy_acecaptcha.sandbox import Sandbox  # noqa: PLC0415 - an extra
    except ImportError as error:
        _complain(error)
        return FAILED
    # Nobody needs to hear of the calls that Ctrl-C cuts off.
    logging.getLogger("waitress").setLevel(logging.ERROR)
    server = Sandbox(
        options.port, latency=options.latency, fail=dict(options.fail), token=options.token
    )
    try:
        with server:
            print(f"Listening on {server.url}, Ctrl-C to stop. To point clients here:")
            for name, value in server.environ.items():
                print(f"  export {name}={shlex.quote(value)}", flush=True)
            threading.Event().wait()  # for Ctrl-C
    except OSError as error:
        _complain(f"port {options.port} of 127.0.0.1: {error.strerror}; choose one with --port")
        return FAILED
    return DONE
