"""A journal's images as a training set."""

from __future__ import annotations

from pathlib import Path

import pytest

from scrapy_acecaptcha.cli.main import main
from scrapy_acecaptcha.recognition.journal import Journal
from tests.report.test_report import DRAWING, GIF, call, journal

__all__ = ["journal"]


def images(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}


def test_named_by_their_answers(
    journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call(journal)
    call(journal)
    call(journal, image=GIF + b"2")
    call(journal, image=GIF + b"3", answer="../a b")
    call(journal, "rejected", image=GIF + b"4", answer="wrong")
    call(journal, "unknown", image=GIF + b"5")
    call(journal, image=DRAWING)
    folder = tmp_path / "new" / "set"
    for _ in range(2):  # a second time adds nothing
        assert main(["export", str(journal.path), str(folder)]) == 0
        assert capsys.readouterr().out == f"{folder}: 3 images\n"
        assert set(images(folder).values()) == {GIF, GIF + b"2", GIF + b"3"}
        assert {name.rpartition("_")[0] for name in images(folder)} == {"7364", "..%2Fa%20b"}
    assert main(["export", str(journal.path), str(folder), "--refused"]) == 0

    (name,) = images(folder / "refused")
    assert name.startswith("wrong_")


def test_what_was_refused_later_is_no_example(journal: Journal, tmp_path: Path) -> None:
    call(journal)
    call(journal, "rejected")
    assert main(["export", str(journal.path), str(tmp_path / "set")]) == 0
    assert images(tmp_path / "set") == {}


def test_the_default_is_the_journal_here(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call(journal)
    monkeypatch.chdir(tmp_path)
    assert main(["export", "set"]) == 0
    assert len(images(tmp_path / "set")) == 1


def test_errors(journal: Journal, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "none.db"), str(tmp_path)]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["export", str(journal.path), str(journal.path)]) == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("price", ["-1", "nan", "inf", "x"])
def test_a_price_that_cannot_be(price: str) -> None:
    assert main(["report", "x.db", f"--price={price}"]) == 2
