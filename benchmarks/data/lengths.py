"""Texts of exactly so many tokens, cut out of real paragraphs with the model's own tokenizer."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .workloads import SEED, Workload, pool_of

IN_PARAGRAPHS = 256  # tokens, up to which there are enough paragraphs of that length; longer texts are several of them
CHARACTERS = 8  # of a text for each of its tokens: more than any tokenizer takes for one on the average


def open_tokenizer(file: Path) -> Any:
    """The tokenizer of a tokenizer.json, which neither cuts nor pads.

    Raises:
        BenchmarkError: the file is missing or holds no tokenizer.
    """
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the Rust side raises nothing more particular
        raise BenchmarkError(f"{file} cannot be read as a tokenizer: {error}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def texts(workload: Workload, data: Path, tokenizer: Any) -> list[str]:
    """`count` different texts of `workload.length` tokens each, special tokens included: always the same ones.

    Raises:
        BenchmarkError: a file is missing or has too few such texts.
    """
    (part,), length = workload.parts, workload.length
    assert length is not None
    paragraphs = pool_of(part, data)
    draw = random.Random(f"{SEED} {workload.name}")
    draw.shuffle(paragraphs)
    if length > IN_PARAGRAPHS:
        paragraphs = list(joined(paragraphs, CHARACTERS * length))
    # A dictionary keeps the order and takes each text once. Paragraphs give a few pieces each, so that many are seen.
    chosen: dict[str, None] = {}
    for paragraph in paragraphs:
        chosen.update(dict.fromkeys(pieces(paragraph, length, tokenizer)))
        if len(chosen) >= part.count:
            break
    if len(chosen) < part.count:
        raise BenchmarkError(
            f"workload {workload.name} needs {part.count} texts of {length} tokens out of {', '.join(part.files)}; "
            f"{data} has {len(chosen)}"
        )
    found = list(chosen)[: part.count]
    draw.shuffle(found)
    return found


def joined(paragraphs: Iterable[str], characters: int) -> Iterator[str]:
    """Paragraphs one after the other as texts of so many characters and more; what is left over is not given."""
    found: list[str] = []
    for paragraph in paragraphs:
        found.append(paragraph)
        if sum(map(len, found)) >= characters:
            yield "\n".join(found)
            found = []


def pieces(paragraph: str, length: int, tokenizer: Any) -> Iterator[str]:
    """Stretches of a paragraph, one after the other, that begin with a word and have exactly `length` tokens.

    Where a piece tokenizes otherwise than it did inside its paragraph, it is left out: every piece is counted again.
    """
    inner = length - tokenizer.num_special_tokens_to_add(False)
    offsets: Sequence[tuple[int, int]] = tokenizer.encode(paragraph, add_special_tokens=False).offsets
    start = 0
    while inner > 0 and start + inner <= len(offsets):
        begin, end = offsets[start][0], offsets[start + inner - 1][1]
        begins_word = begin == 0 or paragraph[begin - 1].isspace() or paragraph[begin].isspace()
        piece = paragraph[begin:end].strip()
        if begins_word and len(tokenizer.encode(piece).ids) == length:
            yield piece
            start += inner
        else:
            start += 1
