"""The files of a folder as texts: which are read, and what their text is. Knows no model and no index."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

from ..errors import InvalidInputError
from ..system.paths import as_text

PAGE = "\f"  # between the pages of a PDF
CODE = (".py",)  # a line is a sentence there


class UnreadableError(InvalidInputError):
    """A file whose text cannot be had; the message says why, without its name."""


@dataclass(frozen=True)
class Found:
    """The files of a folder, by name from the folder on, in order."""

    files: Mapping[str, Path]
    unreadable: Mapping[str, str]  # directories whose files are not known, each with the reason

    def may_have(self, name: str) -> bool:
        """Whether a file that was not found may be there all the same."""
        return any(name.startswith(f"{directory}/") for directory in self.unreadable)


def find(folder: Path) -> Found:
    """Files whose kind is read; nothing hidden, no link to a directory followed.

    Raises:
        InvalidInputError: no such folder, or one that cannot be read.
    """
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a directory")
    unreadable: dict[str, str] = {}

    def note(error: OSError) -> None:
        place = Path(os.fsdecode(error.filename))
        if place == folder:
            raise InvalidInputError(f"{folder} cannot be read ({reason(error)})") from error
        unreadable[as_text(place.relative_to(folder).as_posix())] = reason(error)

    found = {}
    for place, directories, names in os.walk(folder, onerror=note):
        directories[:] = [name for name in directories if not name.startswith(".")]
        for name in names:
            path = Path(place, name)
            if not name.startswith(".") and path.suffix.lower() in KINDS and is_file(path):
                found[as_text(path.relative_to(folder).as_posix())] = path
    return Found(dict(sorted(found.items())), unreadable)


def is_file(path: Path) -> bool:
    """Whether there is a file, or something of which only reading it can tell."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except FileNotFoundError:  # a link to nothing
        return False
    except OSError:  # which whoever reads it says
        return True


def reason(error: OSError) -> str:
    """Why a file or a directory cannot be read."""
    return error.strerror or type(error).__name__


def text_of(path: Path, content: bytes) -> str:
    """The text that is searched; places in it are characters of it.

    Plain files: as they are, so that a place is one of the file. HTML and PDF: the text a reader sees.

    Raises:
        UnreadableError: not UTF-8, not HTML or a PDF that is read, or no package that reads one.
    """
    return KINDS[path.suffix.lower()](content)


def digest(content: bytes) -> str:
    """What tells contents apart."""
    return hashlib.sha256(content).hexdigest()


def _plain(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableError(f"not UTF-8 (byte {error.start})") from error


class _Reader(HTMLParser):
    """Visible text: a line for each block, none of what a browser does not show."""

    HIDDEN = frozenset({"script", "style", "template", "noscript"})
    INLINE = frozenset(
        "a abbr b bdi bdo br cite code data em font i kbd mark q s samp small span strong sub sup u".split()
    )

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._hidden = 0

    def handle_starttag(self, tag: str, attrs: object) -> None:
        """A block begins on a line of its own."""
        self._hidden += tag in self.HIDDEN
        if tag == "br":
            self.parts.append("\n")
        elif tag not in self.INLINE:
            self.parts.append("\n\n")

    def handle_endtag(self, tag: str) -> None:
        """And ends its line."""
        self._hidden = max(self._hidden - (tag in self.HIDDEN), 0)
        if tag not in self.INLINE:
            self.parts.append("\n\n")

    def handle_data(self, data: str) -> None:
        """Text, in which white space says nothing."""
        if not self._hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def _html(content: bytes) -> str:
    reader, source = _Reader(), _plain(content)
    try:
        reader.feed(source)
        reader.close()
    except (AssertionError, ValueError, RecursionError) as error:  # declarations that html.parser does not know
        raise UnreadableError(f"not HTML that Python's parser reads ({error or type(error).__name__})") from error
    text = re.sub(r" *\n *", "\n", "".join(reader.parts))
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def _pdf(content: bytes) -> str:
    try:
        import pypdf
    except ImportError as error:
        raise UnreadableError("PDF needs the package pypdf: pip install 'fastembed-rt[pdf]'") from error
    import io

    try:
        text = PAGE.join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(content)).pages)
    except Exception as error:  # what damaged files raise there is anything
        raise UnreadableError(f"not a PDF that pypdf reads ({type(error).__name__})") from error
    # Half a surrogate pair is no character, and no tokenizer takes it; two halves that were read apart are one.
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


KINDS: Mapping[str, Callable[[bytes], str]] = {
    ".txt": _plain,
    ".md": _plain,
    ".py": _plain,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
}


def lines_of(name: str, text: str, places: Iterable[int]) -> Iterator[str]:
    """Where characters stand, which ascend, as people count: "line 1", of a PDF "page 1", "character 0" of HTML."""
    kind = Path(name).suffix.lower()
    if kind in (".html", ".htm"):
        yield from (f"character {place}" for place in places)
        return
    unit, end = ("page", PAGE) if kind == ".pdf" else ("line", "\n")
    number, before = 1, 0
    for place in places:
        number += text.count(end, before, place)
        before = place
        yield f"{unit} {number}"
