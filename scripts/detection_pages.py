"""How well detection does on pages that others wrote: ``python -m scripts.detection_pages``.

The pages are the templates in packages of Debian, PyPI and npm, and in public Git repositories;
nothing of theirs is in this repository. detection_pages.tsv beside this file names the packages,
and for the pages with a captcha, by path, which picture it is, which field takes the answer and
which button sends it.

    fetch FOLDER     download the packages of the three registries into FOLDER
    measure FOLDER   print the figures; Git repositories lie in FOLDER/git/OWNER+NAME, bare or not
    label FOLDER     print the pages that may have a captcha, to be labelled by eye

Packages are split into two halves by a hash of their names: ``work`` was looked at while words and
weights were chosen, ``final`` was not, and serves for the figure in docs/detection.md.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from parsel import Selector

from scrapy_acecaptcha.detect.find import AUTO_CONFIDENCE, Candidate, find_captchas
from scrapy_acecaptcha.page.controls import is_text, kind_of
from scrapy_acecaptcha.selectors import select
from scripts.detection_labels import is_suspect, outline
from scripts.page_templates import EXTENSIONS, as_html

EXPECTED = Path(__file__).with_suffix(".tsv")
SEED = "2026-11-24"
MOST_OF_A_PACKAGE = 40  # pages without a captcha, so that no large package outweighs the others
MOST_CAPTCHAS_OF_A_PACKAGE = 4
MOST_BYTES = 400_000  # of a template
NONE, UNCLEAR = "none", "unclear"  # in the place of the picture's selector


def half_of(package: str) -> str:
    """The half that a package belongs to."""
    return "final" if _hash(package) % 2 else "work"


def _hash(text: str) -> int:
    return int(hashlib.sha256(f"{SEED} {text}".encode()).hexdigest(), 16)


# Packages


def fetch(folder: Path, packages: list[str]) -> None:
    """Download what is not there yet, with the registries' own clients."""
    commands = {
        "deb": ["apt-get", "download", "-q"],
        "pypi": ["pip", "download", "-q", "--no-deps", "--only-binary=:all:"],
        "npm": ["npm", "pack", "--silent"],
    }
    for package in packages:
        registry, _, name = package.partition(":")
        if registry not in commands or _archive(folder, package) is not None:
            continue
        (folder / registry).mkdir(parents=True, exist_ok=True)
        subprocess.run([*commands[registry], name], cwd=folder / registry, check=False)  # noqa: S603


def _archive(folder: Path, package: str) -> Path | None:
    """The archive or repository of a package; None where it is not there."""
    registry, _, name = package.partition(":")
    if registry == "git":
        place = folder / "git" / name.replace("/", "+")
        places = [place, place / ".git", place / "repo", place / "repo" / ".git"]
        return next((p for p in places if (p / "HEAD").exists()), None)
    plain = re.sub(r"[-_.@/]+", "[-_.]", name.lstrip("@"))
    for file in sorted((folder / registry).glob("*")):
        if re.match(rf"{plain}[-_]v?\d", file.name, re.IGNORECASE):
            return file
    return None


def _files(archive: Path) -> Iterator[tuple[str, bytes]]:
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if _is_template(info.filename, info.file_size):
                    yield info.filename, opened.read(info)
        return
    if (archive / "HEAD").exists():
        yield from _files_in_git(archive)
        return
    if archive.suffix == ".deb":
        packed = _output("dpkg-deb", "--fsys-tarfile", str(archive))
    else:
        packed = archive.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(packed)) as members:
        for member in members:
            if member.isfile() and _is_template(member.name, member.size):
                content = members.extractfile(member)
                assert content is not None
                yield member.name.removeprefix("./"), content.read()


def _files_in_git(repository: Path) -> Iterator[tuple[str, bytes]]:
    """The templates of the newest commit; large blobs may be missing, and are not asked for."""
    git = ("git", "-C", str(repository))
    listed = _output(*git, "ls-tree", "-r", "-l", "-z", "HEAD").decode("utf-8", "replace")
    chosen = []
    for line in listed.split("\0")[:-1]:
        about, _, path = line.partition("\t")
        _, kind, blob, size = about.split()
        if kind == "blob" and size.isdigit() and _is_template(path, int(size)):
            chosen.append((path, blob))
    asked = "".join(f"{blob}\n" for _, blob in chosen).encode()
    stream = io.BytesIO(_output(*git, "cat-file", "--batch", sent=asked))
    for path, _ in chosen:
        header = stream.readline().split()
        if header[-1] == b"missing":
            continue
        content = stream.read(int(header[2]))
        stream.read(1)
        yield path, content


def _output(*command: str, sent: bytes | None = None) -> bytes:
    return subprocess.run(command, input=sent, capture_output=True, check=True).stdout  # noqa: S603


def _is_template(path: str, size: int) -> bool:
    file = path.rpartition("/")[2].lower()
    return file.rpartition(".")[2] in EXTENSIONS and 150 < size <= MOST_BYTES


# Pages


@dataclass
class Page:
    """A template as a browser would see it."""

    package: str
    path: str
    html: str

    @cached_property
    def selector(self) -> Selector:
        return Selector(text=self.html, type="html")

    @cached_property
    def has_both(self) -> bool:
        """Whether it shows a picture and a field for text."""
        root = self.selector.root
        if root is None:
            return False
        pictures = self.selector.css("img, image, svg, canvas, input[type=image], [style*='url(']")
        return bool(pictures) and any(is_text(field) for field in root.iter("input"))


def pages_of(folder: Path, package: str) -> list[Page]:
    """The pages of a package that have a picture and a field, each once."""
    archive = _archive(folder, package)
    if archive is None:
        return []
    pages: dict[str, Page] = {}
    for path, content in _files(archive):
        if "securimage/" in path and "securimage" not in package:
            continue  # a copy of a library whose own package is among these
        if not re.search(
            rb"<(?:input|\w+:(?:text|input)|el-input)|text_field", content, re.IGNORECASE
        ):
            continue
        page = Page(package, path, as_html(_decoded(content)))
        if page.html.strip() and page.has_both:
            pages.setdefault(" ".join(page.html.split()), page)
    return sorted(pages.values(), key=lambda page: _hash(page.path))


def _decoded(content: bytes) -> str:
    for encoding in ("utf-8-sig", "gb18030", "cp1251"):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode("latin-1")


# What is expected


class Label(NamedTuple):
    """What stands on a page: selectors, or NONE or UNCLEAR in the place of the picture's."""

    image: str
    input: str = ""
    submit: str = ""


def read_expected() -> tuple[list[str], dict[tuple[str, str], list[Label]]]:
    """The packages, and the labels by package and path."""
    packages: list[str] = []
    labels: dict[tuple[str, str], list[Label]] = {}
    for line in EXPECTED.read_text("utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        package, *rest = line.split("\t")
        if package not in packages:
            packages.append(package)
        if rest:
            labels.setdefault((package, rest[0]), []).append(Label(*rest[1:]))
    return packages, labels


# Measuring


class Outcome(NamedTuple):
    """What detection made of one page.

    :param trusted: what `auto` would take, None if nothing
    :param first: the first candidate, as `probe` shows it
    """

    page: Page
    labels: list[Label]
    first: Candidate | None
    trusted: Candidate | None
    seconds: float

    @property
    def has_captcha(self) -> bool:
        return bool(self.labels)

    def is_right(self, found: Candidate | None, *, button: bool = False) -> bool:
        """Whether picture and field are those of a captcha; with *button*, that one, too."""
        return any(self._are_same(found, label, button) for label in self.labels)

    def _are_same(self, found: Candidate | None, label: Label, button: bool) -> bool:
        if found is None or found.input is None:
            return False
        page = self.page.selector
        chosen = [_element(page, found.image), _element(page, found.input)]
        wanted = [_element(page, label.image), _element(page, label.input)]
        if button and label.submit:
            chosen.append(self._pressed(found))
            wanted.append(_element(page, label.submit))
        return all(one is other for one, other in zip(chosen, wanted, strict=True))

    def _pressed(self, found: Candidate) -> object:
        """The button that a rule made of a candidate presses: its own, else the form's first."""
        page = self.page.selector
        if found.submit or not found.form:
            return _element(page, found.submit)
        buttons = select(page, found.form)[0].css("button, input")
        return next((b.root for b in buttons if kind_of(b.root) in ("submit", "image")), None)


def _element(page: Selector, selector: str | None) -> object:
    matches = select(page, selector) if selector else []
    return matches[0].root if matches else None


def outcomes(folder: Path, half: str | None) -> Iterator[Outcome]:
    """Look at each page that counts, once."""
    packages, labels = read_expected()
    seen = set()
    for package in packages:
        if half not in (None, half_of(package)):
            continue
        left = {True: MOST_CAPTCHAS_OF_A_PACKAGE, False: MOST_OF_A_PACKAGE}
        for page in pages_of(folder, package):
            told = labels.get((package, page.path), [])
            if any(label.image == UNCLEAR for label in told) or (
                not told and is_suspect(page.selector)
            ):
                continue
            real = [label for label in told if label.image != NONE]
            text = " ".join(page.html.split())
            if text in seen or not left[bool(real)]:
                continue
            seen.add(text)
            left[bool(real)] -= 1
            yield _look_at(page, real)


def _look_at(page: Page, labels: list[Label]) -> Outcome:
    selector = page.selector  # parsed already in a crawl, too
    started = time.process_time()
    found = find_captchas(selector)
    seconds = time.process_time() - started
    first = found[0] if found else None
    trusted = first if first and first.confidence >= AUTO_CONFIDENCE else None
    return Outcome(page, labels, first, trusted, seconds)


def measure(folder: Path, half: str | None, verbose: bool) -> None:
    """Print the figures."""
    all_of_them = list(outcomes(folder, half))
    captchas = [o for o in all_of_them if o.has_captcha]
    hits = [o for o in captchas if o.is_right(o.trusted)]
    trusted = [o for o in all_of_them if o.trusted]
    firsts = [o for o in captchas if o.is_right(o.first, button=True)]
    packages = {o.page.package for o in all_of_them}
    times = sorted(o.seconds for o in all_of_them)
    with_captcha = {o.page.package for o in captchas}
    print(f"{half or 'all'}: {len(packages)} packages; {len(captchas)} pages with a captcha (of")
    print(f"{len(with_captcha)} packages), {len(all_of_them) - len(captchas)} without")
    alarms = sum(not o.has_captcha for o in trusted)
    print(
        f"auto: recall {len(hits) / len(captchas):.1%}, precision {len(hits) / len(trusted):.1%}:"
    )
    print(f"{len(trusted) - len(hits)} wrong, {alarms} of them on pages without a captcha")
    print(f"first candidate right, with field and button: {len(firsts) / len(captchas):.1%}")
    middle, late = times[len(times) // 2], times[len(times) * 99 // 100]
    print(
        f"CPU: median {middle * 1e3:.1f} ms, p99 {late * 1e3:.1f} ms, most {times[-1] * 1e3:.0f} ms"
    )
    if verbose:
        for o in all_of_them:
            if (o.trusted or o.has_captcha) and not o.is_right(o.trusted, button=True):
                kind = "MISSED" if o.has_captcha else "ALARM"
                print(kind, o.page.package, o.page.path, o.labels, o.first, sep="\n   ")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=("fetch", "measure", "label"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--half", choices=("work", "final"))
    parser.add_argument("--verbose", action="store_true", help="name the pages that went wrong")
    options = parser.parse_args()
    packages, labels = read_expected()
    if options.command == "fetch":
        fetch(options.folder, packages)
    elif options.command == "measure":
        measure(options.folder, options.half, options.verbose)
    else:
        for package in packages:
            for page in pages_of(options.folder, package):
                if is_suspect(page.selector) and (package, page.path) not in labels:
                    print(package, page.path, *outline(page.selector), sep="\n", end="\n\n")


if __name__ == "__main__":
    main()
