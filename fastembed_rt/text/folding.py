"""What characters are to ALBERT's tokenizers and XLNet's: decomposed (NFKD), without marks, perhaps in lower case."""

from __future__ import annotations

import unicodedata
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FOLDED = 0x3100  # characters in the table, from 0 on, as in the C source (native/src/folding.h)
MOST_FOLDED = 32  # bytes that one becomes, likewise
UNCERTAIN = b"\xff"  # in the table: instead of what a character becomes


class Folded(NamedTuple):
    """What each character becomes in UTF-8, one after the other; where each begins, and the end: (FOLDED + 1,)."""

    data: bytes
    starts: npt.NDArray[np.uint32]


@cache
def folded(lower: bool) -> Folded:
    """Of all characters in the table: what is certain in whatever version of Unicode a library has."""
    then = unicodedata.ucd_3_2_0
    characters = list(map(chr, range(FOLDED)))
    decomposed = [unicodedata.normalize("NFKD", character) for character in characters]
    parts = list(dict.fromkeys([*characters, *"".join(decomposed)]))
    kinds, earlier = map(unicodedata.category, parts), map(then.category, parts)
    cased = map(str.lower, parts) if lower else parts
    single = dict(zip(parts, map(_single, kinds, earlier, cased), strict=True))
    made = [single[character] for character in characters]
    for code, (character, whole) in enumerate(zip(characters, decomposed, strict=True)):
        if whole != character:
            inner = [single[part] for part in whole]
            certain = UNCERTAIN not in inner and then.normalize("NFKD", character) == whole
            made[code] = b"".join(inner) if certain else UNCERTAIN
    made = [written if len(written) <= MOST_FOLDED else UNCERTAIN for written in made]
    starts = np.zeros(FOLDED + 1, np.uint32)
    np.cumsum(np.fromiter(map(len, made), np.uint32, FOLDED), out=starts[1:])
    return Folded(b"".join(made), starts)


def _single(kind: str, earlier: str, cased: str) -> bytes:
    """Of one that is not decomposed, by its categories now and in Unicode 3.2, and by what lower case makes of it.

    Signs that Unicode 3.2 did not have are no marks to any version; letters may be.
    """
    mark = kind[0] == "M"
    if (earlier == "Cn" and kind[0] != "S") or mark != (earlier[0] == "M"):
        return UNCERTAIN
    return b"" if mark else cased.encode()
