"""The ``acecaptcha`` command, against the sandbox."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from scrapy_acecaptcha import AceCaptchaClient
from scrapy_acecaptcha.cli.main import main
from scrapy_acecaptcha.recognition.journal import Journal
from scrapy_acecaptcha.recognition.sandbox import Sandbox
from tests.recognition.test_sandbox import draw

Serve = Callable[..., AbstractContextManager[Sandbox]]
Images = Callable[[int], list[str]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Run a sandbox and let the environment point to it."""

    @contextmanager
    def serve(
        recognise: Callable[[bytes], str], fail: dict[str, float] | None = None
    ) -> Iterator[Sandbox]:
        with Sandbox(recognise=recognise, fail=fail) as sandbox:
            for name, value in sandbox.environ.items():
                monkeypatch.setenv(name, value)
            yield sandbox

    return serve


@pytest.fixture
def images(tmp_path: Path) -> Images:
    """Write images of the numbers 0, 1, 2, ... and return their paths."""

    def write(count: int) -> list[str]:
        paths = [tmp_path / f"{number}.png" for number in range(count)]
        for number, path in enumerate(paths):
            path.write_bytes(draw(str(number)) + str(number).encode())
        return [str(path) for path in paths]

    return write


def number_of(data: bytes) -> str:
    """Read an image of `images` by what stands behind its end."""
    return data.rpartition(b"\x82")[2].decode()  # the last byte of every PNG


@contextmanager
def acecaptcha(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a process that can be interrupted, even where this one cannot."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "scrapy_acecaptcha", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


# solve


def test_solve_prints_files_and_texts(
    serve: Serve,
    images: Images,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serve(number_of) as sandbox:
        files = images(40)  # more than are under way at a time
        assert main(["solve", *files]) == 0
        assert sandbox.calls == 40
    out, err = capsys.readouterr()
    assert out.splitlines() == [f"{file}\t{number}" for number, file in enumerate(files)]
    assert err == ""


def test_solve_keeps_the_order_and_reads_several_at_a_time(
    serve: Serve,
    images: Images,
    capsys: pytest.CaptureFixture[str],
) -> None:
    last_is_read = threading.Event()

    def recognise(data: bytes) -> str:
        text = number_of(data)
        if text == "2":
            last_is_read.set()
        else:
            assert last_is_read.wait(60)
        return text

    with serve(recognise):
        files = images(3)
        assert main(["solve", *files]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{file}\t{number}" for number, file in enumerate(files)
    ]


def test_solve_prints_the_others_when_a_file_fails(
    serve: Serve,
    images: Images,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    page = tmp_path / "page.png"
    page.write_bytes(b"<html>")
    missing = tmp_path / "missing.png"
    with serve(number_of) as sandbox:
        first, second = images(2)
        assert main(["solve", str(missing), first, str(page), str(tmp_path), second]) == 1
        assert sandbox.calls == 2
    out, err = capsys.readouterr()
    assert out == f"{first}\t0\n{second}\t1\n"
    lines = err.splitlines()
    assert len(lines) == 3
    assert f"{missing}: No such file" in lines[0]
    assert f"{page}: " in lines[1]
    assert "not an image" in lines[1]
    assert f"{tmp_path}: Is a directory" in lines[2]


def test_solve_says_what_the_api_said(
    serve: Serve,
    images: Images,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with serve(number_of, fail={"forbidden": 1}):
        files = images(2)
        assert main(["solve", *files]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.partition(": forbidden: ")[0] for line in lines] == [
        f"acecaptcha: {file}" for file in files
    ]


@pytest.mark.parametrize("code", ["invalid_token", "used_up"])
def test_solve_stops_where_all_files_would_fail_alike(
    serve: Serve,
    images: Images,
    capsys: pytest.CaptureFixture[str],
    code: str,
) -> None:
    with serve(number_of, fail={code: 1}):
        assert main(["solve", *images(40)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"acecaptcha: {code}: ")
    assert err.count("\n") == 1


def test_solve_without_a_token_says_where_it_comes_from(
    images: Images, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["solve", *images(1)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "ACEDATACLOUD_API_TOKEN" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("count", "drawn"), [(12, True), (2, False)])
def test_solve_draws_a_bar_for_many_files_on_a_terminal(
    serve: Serve,
    images: Images,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    count: int,
    drawn: bool,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with serve(number_of):
        assert main(["solve", *images(count)]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == count
    assert (f"{count}/{count}" in err) is drawn


def test_solve_json(
    serve: Serve, images: Images, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = str(tmp_path / "missing.png")
    (image,) = images(1)
    with serve(number_of):
        assert main(["solve", "--json", image, missing]) == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(line) for line in lines] == [{"file", "text"}, {"file", "error"}]
    assert [line["file"] for line in lines] == [image, missing]


def test_check_tells_whether_the_token_is_good(
    serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    with serve(lambda image: "7364"):
        assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "costs one API call" in out
    assert "The token is good" in out


def test_report_writes_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, page = tmp_path / "journal.db", tmp_path / "report.html"
    with Journal(path) as journal:
        journal.begin(
            journal.open_account("s"), host="example.org", url="http://example.org/", image=b"x"
        )
    assert main(["report", str(path), "-o", str(page)]) == 0
    assert capsys.readouterr().out == f"{page}: 1 calls\n"
    assert "example.org" in page.read_text()


def test_report_needs_a_journal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none.db")]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_solve_ends_quietly_on_ctrl_c(serve: Serve, images: Images) -> None:
    asked, never = threading.Event(), threading.Event()

    def recognise(data: bytes) -> str:
        asked.set()
        never.wait(60)
        return ""

    with serve(recognise), acecaptcha("solve", *images(3)) as process:
        assert asked.wait(60)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        never.set()
        assert (process.returncode, out, err) == (130, "", "")


def test_solve_ends_quietly_when_nobody_reads_on(serve: Serve, images: Images) -> None:
    reader_left = threading.Event()

    def recognise(data: bytes) -> str:
        assert reader_left.wait(60)
        return "x"

    with serve(recognise), acecaptcha("solve", *images(3)) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        reader_left.set()
        assert process.stderr.read() == ""
        assert process.wait(60) == 1


# sandbox


@pytest.mark.slow
def test_sandbox_serves_until_ctrl_c() -> None:
    with acecaptcha("sandbox", "--port", "0", "--token", "right") as process:
        assert process.stdout is not None
        url = process.stdout.readline().split()[2].rstrip(",")
        exports = [process.stdout.readline().strip() for _ in range(2)]
        assert exports == [
            f"export ACEDATACLOUD_API_BASE_URL={url}",
            "export ACEDATACLOUD_API_TOKEN=right",
        ]
        with AceCaptchaClient("right", url) as client:
            assert client.recognize(draw("7364")) == "7364"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err) == (130, "", "")


def test_sandbox_takes_failures_one_by_one_and_several_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[str, object] = {}

    class Watched(Sandbox):
        def __init__(self, port: int, **options: object) -> None:
            seen.update(options, port=port)
            raise KeyboardInterrupt

    monkeypatch.setattr("scrapy_acecaptcha.recognition.sandbox.Sandbox", Watched)
    arguments = ["--fail", "api_error:0.1", "timeout:0.2", "--fail", "task:.5", "--latency", "1.5"]
    assert main(["sandbox", *arguments]) == 130
    assert seen == {
        "port": 8765,
        "latency": 1.5,
        "fail": {"api_error": 0.1, "timeout": 0.2, "task": 0.5},
        "token": None,
    }


def test_sandbox_takes_its_token_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Other users of the machine see the arguments of every process."""

    class Watched(Sandbox):
        def __enter__(self) -> Any:
            super().__enter__()
            seen.append(self.environ["ACEDATACLOUD_API_TOKEN"])
            return self

    seen: list[str] = []
    monkeypatch.setattr("scrapy_acecaptcha.recognition.sandbox.Sandbox", Watched)
    monkeypatch.setattr(
        "scrapy_acecaptcha.cli.main.threading", Mock(Event=Mock(side_effect=KeyboardInterrupt))
    )
    monkeypatch.setenv("ACEDATACLOUD_API_TOKEN", "secret")
    assert main(["sandbox", "--port", "0", "--token"]) == 130
    assert seen == ["secret"]
    assert "secret" not in capsys.readouterr().out
    monkeypatch.delenv("ACEDATACLOUD_API_TOKEN")
    assert main(["sandbox", "--port", "0", "--token"]) == 2
    assert "ACEDATACLOUD_API_TOKEN, which is not set" in capsys.readouterr().err


def test_sandbox_says_that_its_port_is_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    with Sandbox() as other:
        assert main(["sandbox", "--port", str(other.port)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert f"port {other.port}" in err
    assert "--port" in err
    assert err.count("\n") == 1


def test_sandbox_without_its_extra_says_how_to_install_it() -> None:
    code = (
        "import sys; sys.modules['ddddocr'] = None\n"
        "from scrapy_acecaptcha.cli.main import main\n"
        "sys.exit(main(['sandbox']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert "pip install 'scrapy-acecaptcha[sandbox]'" in done.stderr
    assert done.stderr.count("\n") == 1


# Usage


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["guess"],
        ["solve"],
        ["solve", "--loud", "x.png"],
        ["sandbox", "--port", "http"],
        ["sandbox", "--port", "65536"],
        ["sandbox", "--latency", "-1"],
        ["sandbox", "--latency", "soon"],
        ["sandbox", "--fail", "api_error"],
        ["sandbox", "--fail", "teapot:1"],
        ["sandbox", "--fail", "api_error:2"],
    ],
    ids=" ".join,
)
def test_bad_usage_is_told_in_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("acecaptcha")
    assert err.count("\n") == 1


def test_help_names_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert "solve" in out
    assert "sandbox" in out


@pytest.mark.slow
def test_the_script_and_the_module_are_the_same_command() -> None:
    script = Path(sys.executable).with_name("acecaptcha")
    outputs = {
        subprocess.run(
            [*command, "solve", "--help"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
        for command in ([str(script)], [sys.executable, "-m", "scrapy_acecaptcha"])
    }
    assert len(outputs) == 1
