"""A text in chunks that a model reads whole: cut where a reader would, with places in the text. Knows no file."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator

from ..errors import InvalidInputError, TextTooLongError, UnknownTokenError
from ..text.tokenizer import TextTokenizer

Place = tuple[int, int]  # first character, and the one behind the last
REFUSED = (UnknownTokenError, TextTooLongError)  # of a text that a model does not take: its file alone is left out
SECTION = 200_000  # characters tokenized at a time: bounds memory
PAGES = re.compile(r"[^\f]*\f|[^\f]+")  # no chunk is on two of them
PARAGRAPH = re.compile(r"\n[^\S\n]*\n\s*|\f\s*")
# An end of a sentence: a mark, closing quotes and brackets, white space; marks of Chinese and Japanese need none.
SENTENCE = re.compile(r"[.!?…][\"'”’»)\]]*\s+|[。！？]\s*")
LINE = re.compile(r"\n\s*")
SPACE = re.compile(r"\s+")
WRAPPED = 50  # letters of a line that an editor may have ended
BEYOND = 64  # characters of white space that are looked at behind the last token


class Chunker:
    """Cuts texts by one tokenizer, limit and prompt."""

    def __init__(self, tokenizer: TextTokenizer, prompt: str, limit: int) -> None:
        """Chunks of at most `limit` tokens, special tokens and prompt included; a character alone may have more.

        Raises:
            InvalidInputError: a limit that special tokens and prompt reach.
        """
        around = int(tokenizer.count([""], prompt)[0])
        if limit <= around:
            raise InvalidInputError(
                f"chunks of {limit} tokens have no room beside the {around} of special tokens and prompt"
            )
        self._tokenizer, self._prompt, self._limit, self._room = tokenizer, prompt, limit, limit - around

    def __call__(self, text: str, *, code: bool = False) -> list[Place]:
        """Places of the chunks of a text, in order, without the white space around them; all else is in one of them.

        A chunk ends at the last paragraph of its second half, else at a sentence's end (of code: a line's), a line's, a
        word's, a token's.
        """
        found: list[Place] = []
        for start, stop in _sections(text):
            found += self._fitting(text, self._cut(text, start, stop, self._room, code), self._room, code)
        return found

    def _cut(self, text: str, start: int, stop: int, room: int, code: bool) -> list[Place]:
        """Places of `room` tokens, as the part has them as a whole."""
        ((_, offsets, special),) = self._tokenizer.whole([text[start:stop]])
        ends: list[int] = (offsets[~special][:, 1] + start).tolist()  # of each token, ascending
        found: list[Place] = []
        here = start
        while (here := _skip(text, here, stop)) < stop:
            first = bisect_right(ends, here)
            end = stop
            if len(ends) - first > room:
                most = ends[first + room - 1]
                if most >= stop:  # a character of several tokens stands there
                    most = max((place for place in ends[first:] if place < stop), default=stop)
                end = _break(text, min(ends[first + room // 2], most), most, code=code)
            found.append((here, _trimmed(text, here, end)))
            here = end
        return found

    def _fitting(self, text: str, places: list[Place], room: int, code: bool) -> list[Place]:
        """Alone, a chunk may have more tokens than inside its text: those with too many are cut again."""
        if not places:
            return places
        counts = self._tokenizer.count([text[start:stop] for start, stop in places], self._prompt)
        found: list[Place] = []
        for place, count in zip(places, counts.tolist(), strict=True):
            smaller, less = [place], room
            while count > self._limit and smaller == [place] and less > 1:
                less //= 2
                smaller = self._cut(text, *place, less, code)
            found += [place] if smaller == [place] else self._fitting(text, smaller, less, code)
        return found


def sentences(text: str) -> list[Place]:
    """Places of the sentences and lines of a text, without the white space around them."""
    ends = {match.end() for pattern in (PARAGRAPH, SENTENCE) for match in pattern.finditer(text)}
    ends |= {match.end() for match in LINE.finditer(text) if not _is_wrapped(text, match)}
    found = []
    here = 0
    for end in sorted(ends | {len(text)}):
        start, stop = _skip(text, here, end), _trimmed(text, here, end)
        if start < stop:
            found.append((start, stop))
        here = end
    return found


def _is_wrapped(text: str, line_end: re.Match[str]) -> bool:
    """Whether a sentence goes on behind the end of a line: a long one that begins with a letter, as the next does."""
    line = text[text.rfind("\n", 0, line_end.start()) + 1 : line_end.start()]
    return len(line) >= WRAPPED and line[:1].isalnum() and text[line_end.end() : line_end.end() + 1].isalnum()


def _sections(text: str) -> Iterator[Place]:
    """Parts that are cut on their own: pages, and of long ones pieces."""
    start = 0
    for page in PAGES.finditer(text):
        stop = page.end()
        while stop - start > SECTION:
            end = _break(text, start + SECTION // 2, start + SECTION, code=False)
            yield start, end
            start = end
        yield start, stop
        start = stop


def _break(text: str, lowest: int, highest: int, *, code: bool) -> int:
    """Where to end: behind the best kind of break between the two, the last of its kind."""
    for pattern in (PARAGRAPH, LINE, SPACE) if code else (PARAGRAPH, SENTENCE, LINE, SPACE):
        found = 0
        # White space is no token: it may reach over the end, a sentence's mark may not.
        for match in pattern.finditer(text, lowest, highest + BEYOND):
            if match.start() + len(match[0].rstrip()) <= highest:
                found = match.end()
        if found:
            return found
    return highest


def _skip(text: str, start: int, stop: int) -> int:
    match = SPACE.match(text, start, stop)
    return match.end() if match else start


def _trimmed(text: str, start: int, stop: int) -> int:
    return start + len(text[start:stop].rstrip())
