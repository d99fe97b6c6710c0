"""The elements of one JSON array, as they come; the array itself is never in memory."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from ..errors import InvalidInputError

PIECE = 1 << 20  # bytes that are read at a time
BLANK = " \t\r\n\ufeff"
LONGEST = 2**31 - 1  # letters of an element, as of a field of csv
TOKEN = 16  # letters: of whatever is no string, such as -Infinity, and of the escapes of one letter in a string
parse = json.JSONDecoder().raw_decode


class _Text:
    """What has been read of a file and not been used."""

    def __init__(self, stream: BinaryIO, label: str, encoding: str, errors: str) -> None:
        self._stream, self._label = stream, label
        self._decode = codecs.getincrementaldecoder(encoding)(errors).decode
        self._encoding = encoding
        self._ended = False
        self.waiting, self.at = "", 0

    def more(self) -> bool:
        """Read on; False at the end of the file."""
        if self._ended:
            return False
        # As much as is waiting already: an element of any length is parsed a few times only.
        found = self._stream.read(max(PIECE, len(self.waiting) - self.at))
        self._ended = not found
        try:
            self.waiting, self.at = self.waiting[self.at :] + self._decode(found, self._ended), 0
        except UnicodeDecodeError as error:
            raise InvalidInputError(f"{self._label} is not {self._encoding} ({error.reason})") from error
        return True

    def letter(self) -> str:
        """The next one that is no blank, "" at the end of the file."""
        while True:
            while self.at < len(self.waiting) and self.waiting[self.at] in BLANK:
                self.at += 1
            if self.at < len(self.waiting):
                return self.waiting[self.at]
            if not self.more():
                return ""

    def value(self) -> Any:
        """The element that begins here."""
        while True:
            try:
                found, end = parse(self.waiting, self.at)
            except (ValueError, RecursionError) as error:
                if self._may_go_on(error) and self.more():
                    continue
                raise InvalidInputError(f"{self._label} is not JSON ({error})") from error
            if end == len(self.waiting) and self.more():  # a number may go on
                continue
            self.at = end
            return found

    def _may_go_on(self, error: Exception) -> bool:
        """Whether an element may be good JSON whose end has not been read, and not one that no end makes good."""
        length = len(self.waiting) - self.at
        if length > LONGEST:
            raise InvalidInputError(f"{self._label} has an element of more than {LONGEST} letters")
        if isinstance(error, json.JSONDecodeError):
            return error.msg.startswith("Unterminated string") or error.pos > len(self.waiting) - TOKEN
        # A number of too many digits, which may be one with a fraction.
        return isinstance(error, ValueError) and self.waiting[-1].isdigit()


def elements(stream: BinaryIO, label: str, encoding: str, errors: str) -> Iterator[Any]:
    """All of them, in order; none of an empty file.

    Raises:
        InvalidInputError: no array, or one that is damaged: what follows cannot be found then.
    """
    text = _Text(stream, label, encoding, errors)
    first = text.letter()
    if not first:
        return
    if first != "[":
        raise InvalidInputError(f"{label} holds no JSON array; for one object a line pass --input-format jsonl")
    text.at += 1
    empty = text.letter() == "]"
    while not empty:
        if not text.letter():
            raise InvalidInputError(f"{label} ends within its array")
        yield text.value()
        following = text.letter()
        if following == "]":
            break
        if following != ",":
            raise InvalidInputError(
                f"{label} " + ("has no comma behind an element" if following else "ends within its array")
            )
        text.at += 1
    text.at += 1
    if text.letter():  # such as the arrays of several answers, one behind the other
        raise InvalidInputError(f"{label} goes on behind its array; give each array a file of its own, or write jsonl")
