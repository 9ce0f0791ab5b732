"""A journal's images as a training set: files named by the answer that a site accepted."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

from scrapy_acecaptcha.errors import AceCaptchaError
from scrapy_acecaptcha.page.images import RASTER, image_format
from scrapy_acecaptcha.recognition.journal_file import Call, Snapshot


def export_images(
    journal_path: str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    refused: bool = False,
) -> tuple[int, int]:
    """Write the images that were read rightly, as ``ANSWER_NUMBER.png``, into a folder.

    The number is the beginning of the image's SHA-256, as many images have one answer. Files that
    are there already are left alone, so a folder can grow with its journal. Characters that a file
    name cannot have are written as in URLs: ``%2F``.

    :param refused: write those whose text a site refused into the folder ``refused`` there, under
        that text, so that somebody can name them rightly
    :returns: numbers of images with an accepted and with a refused answer, each of them once
    :raises SettingsError: there is no journal at *journal_path*
    :raises AceCaptchaError: the journal is damaged, or the files cannot be written
    """
    folder = Path(directory)
    with Snapshot(journal_path) as journal:
        try:
            accepted = _write(folder, journal.accepted())
            wrong: set[str] = set()
            if refused:
                rejected = (call for call in journal.rows() if call.outcome == "rejected")
                wrong = _write(folder / "refused", rejected, without=accepted)
        except OSError as error:
            raise AceCaptchaError(
                f"The images cannot be written to {folder}: {error.strerror or error}"
            ) from error
    return len(accepted), len(wrong)


def _write(folder: Path, calls: Iterable[Call], without: Iterable[str] = ()) -> set[str]:
    """Write images and return their numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    written = set[str]()
    known = set(without)
    for call in calls:
        kind = image_format(call.image)
        number = sha256(call.image).hexdigest()[:8]
        if kind in RASTER and call.answer and number not in known:
            name = quote(call.answer, safe="")[:120]
            with suppress(FileExistsError), (folder / f"{name}_{number}.{kind}").open("xb") as file:
                file.write(call.image)
            written.add(number)
    return written
