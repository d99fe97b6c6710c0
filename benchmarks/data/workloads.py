"""What is encoded: workloads as rows of a table, drawn from text files of a data folder by a fixed seed.

A file holds one JSON string a line. Nothing is copied: the folder is named by --data or FASTEMBED_RT_DATA.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError

SEED = 20260301  # any number: it only has to stay the same
DATA_VARIABLE = "FASTEMBED_RT_DATA"
DEFAULT_DATA = "../shared/data"

QUESTIONS = ("short_queries_squad_dev.jsonl",)
SENTENCES = ("medium_stsb_dev_sentences.jsonl",)
PARAGRAPHS = ("paragraph_xquad_contexts.jsonl", "paragraph_wikitext2.jsonl")

LENGTHS = (8, 16, 32, 64, 128, 256, 512, 2048, 8192)  # tokens of a text; a model gets those that it reads whole
LENGTH_TOKENS = 16384  # of all texts of one length


@dataclass(frozen=True, kw_only=True)
class Part:
    """So many texts of some files, each longer than so many characters."""

    files: tuple[str, ...]
    count: int
    longer_than: int = 0


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Texts to encode, in an order that knows nothing of their lengths."""

    name: str
    title: str
    parts: tuple[Part, ...]
    timed: bool = True  # False: texts for another purpose, not offered on the command line
    length: int | None = None  # tokens that every text has; its texts are cut out of those of the parts' files
    passages: int = 0  # of a request to a reranker, drawn from the second part; the first has the questions

    @property
    def group(self) -> str:
        """How a table shows it: as texts of a kind, or as a point on the axis of lengths."""
        return "texts" if self.length is None else "length"


def of_length(tokens: int) -> Workload:
    """A workload of LENGTH_TOKENS tokens in texts of so many each, special tokens included."""
    count = LENGTH_TOKENS // tokens
    title = f"{count:,} texts of exactly {tokens:,} tokens"
    return Workload(name=f"length-{tokens}", title=title, parts=(Part(files=PARAGRAPHS, count=count),), length=tokens)


def mixed(count: int) -> tuple[Part, ...]:
    """40 % questions, 30 % sentences, 30 % paragraphs."""
    questions, sentences = round(0.4 * count), round(0.3 * count)
    return (
        Part(files=QUESTIONS, count=questions),
        Part(files=SENTENCES, count=sentences),
        Part(files=PARAGRAPHS, count=count - questions - sentences),
    )


TABLE = (
    Workload(name="short", title="2,000 questions", parts=(Part(files=QUESTIONS, count=2000),)),
    Workload(
        name="mixed",
        title="1,300 texts: 40 % questions, 30 % sentences, 30 % paragraphs",
        parts=mixed(1300),
    ),
    Workload(
        name="long",
        title="250 paragraphs of more than 900 characters",
        parts=(Part(files=PARAGRAPHS, count=250, longer_than=900),),
    ),
    Workload(
        name="smoke",
        title="24 texts, to see that all works",
        parts=(
            Part(files=QUESTIONS, count=10),
            Part(files=SENTENCES, count=8),
            Part(files=PARAGRAPHS, count=4),
            Part(files=PARAGRAPHS, count=2, longer_than=1500),
        ),
    ),
    Workload(name="mixed-96", title="96 texts, mixed as above, for models of half a billion weights", parts=mixed(96)),
    *map(of_length, LENGTHS),
    Workload(
        name="mixed-small",
        title="256 texts, mixed as above, for calls of 1 to 256 texts",
        parts=mixed(256),
        timed=False,
    ),
    Workload(
        name="scaling", title="200 texts, mixed as above, for each budget of threads", parts=mixed(200), timed=False
    ),
    Workload(
        name="scaling-single", title="50 questions, one a call", parts=(Part(files=QUESTIONS, count=50),), timed=False
    ),
    Workload(name="invariance", title="80 texts, alone and together", parts=mixed(80), timed=False),
    # One text a call: questions, as a search box sends them.
    Workload(name="single", title="200 questions, one a call", parts=(Part(files=QUESTIONS, count=200),), timed=False),
    # For contenders whose INT8 needs calibration; 300 texts are what sentence-transformers takes.
    Workload(
        name="calibration",
        title="300 texts for calibration, none of them timed as a whole",
        parts=mixed(300),
        timed=False,
    ),
)
WORKLOADS = {row.name: row for row in TABLE}
TIMED = tuple(row.name for row in TABLE if row.timed)
UNTIMED = tuple(row.name for row in TABLE if not row.timed)
DEFAULT = ("short", "mixed", "long", *(row.name for row in TABLE if row.length is not None))


def data_folder(given: str | None = None, *, texts: bool = True) -> Path:
    """The folder of data: as given, else from the environment, else beside the project.

    `texts`: it is to hold the texts of the workloads, not only tasks.

    Raises:
        BenchmarkError: no such folder.
    """
    folder = Path(given or os.environ.get(DATA_VARIABLE) or DEFAULT_DATA)
    if not folder.is_dir():
        raise BenchmarkError(f"the data folder {folder} does not exist; pass --data FOLDER or set {DATA_VARIABLE}")
    if texts and not (folder / "texts").is_dir():
        raise BenchmarkError(
            f"no texts in {folder} (expected {folder / 'texts'}); pass --data FOLDER or set {DATA_VARIABLE}"
        )
    return folder


def named(names: Iterable[str], *, pairs: bool = False) -> list[Workload]:
    """Timed rows of the table by name; `pairs`: of the table for rerankers.

    Raises:
        BenchmarkError: a name that is not in it.
    """
    names = list(names)
    table, timed = (REQUESTS, TIMED_REQUESTS) if pairs else (WORKLOADS, TIMED)
    unknown = [name for name in names if name not in timed]
    if unknown or not names:
        raise BenchmarkError(f"unknown workload {', '.join(unknown) or '(none)'}; there are {', '.join(timed)}")
    return [table[name] for name in names]


def requests(name: str, title: str, count: int, passages: int, files: tuple[str, ...]) -> Workload:
    """Questions, each with passages that a reranker is to put in order."""
    parts = (Part(files=QUESTIONS, count=count), Part(files=files, count=passages))
    return Workload(name=name, title=title, parts=parts, passages=passages)


# By names that other tasks' workloads have too: what a part asks for, it asks rerankers for as well.
REQUESTS = {
    row.name: row
    for row in (
        requests("sentences", "60 requests of a question and 20 sentences", 60, 20, SENTENCES),
        requests("paragraphs", "15 requests of a question and 20 paragraphs", 15, 20, PARAGRAPHS),
        requests("single", "100 requests of a question and 10 sentences, one a call", 100, 10, SENTENCES),
        requests("invariance", "10 requests of a question and 8 paragraphs, alone and together", 10, 8, PARAGRAPHS),
        requests("calibration", "30 requests of a question and 10 paragraphs for calibration", 30, 10, PARAGRAPHS),
    )
}
TIMED_REQUESTS = ("sentences", "paragraphs")


def texts(workload: Workload, data: Path) -> list[Any]:
    """The texts of a workload, uncut: the same list on every machine that has the same files.

    Requests to rerankers are a question and a list of passages each.

    Raises:
        BenchmarkError: a file is missing, is not what it should be, or has too few texts.
    """
    draw = random.Random(f"{SEED} {workload.name}")
    if workload.passages:
        questions, passages = (pool_of(part, data) for part in workload.parts)
        asked = draw.sample(questions, workload.parts[0].count)
        return [[question, draw.sample(passages, workload.passages)] for question in asked]
    taken = _timed_texts(data) if workload.name == "calibration" else frozenset[str]()
    chosen: list[str] = []
    for part in workload.parts:
        pool = [text for text in pool_of(part, data) if text not in taken]
        if len(pool) < part.count:
            raise BenchmarkError(
                f"workload {workload.name} needs {part.count} texts of {', '.join(part.files)} "
                f"longer than {part.longer_than} characters; {data} has {len(pool)}"
            )
        chosen += draw.sample(pool, part.count)
    draw.shuffle(chosen)
    return chosen


def pool_of(part: Part, data: Path) -> list[str]:
    """The texts that a part draws from, once each: a repeated text would be free for a contender that caches.

    Raises:
        BenchmarkError: a file is missing or is not what it should be.
    """
    lines = (text for name in part.files for text in _lines(data / "texts" / name) if len(text) > part.longer_than)
    return list(dict.fromkeys(lines))


def fingerprint(chosen: list[Any]) -> str:
    """SHA-256 of texts and their order: equal fingerprints, equal work."""
    return hashlib.sha256(json.dumps(chosen, ensure_ascii=True).encode()).hexdigest()


@cache
def _timed_texts(data: Path) -> frozenset[str]:
    drawn = (row for row in TABLE if row.name != "calibration" and row.length is None)
    return frozenset(text for row in drawn for text in texts(row, data))


@cache
def _lines(path: Path) -> tuple[str, ...]:
    if not path.is_file():
        raise BenchmarkError(f"{path} is missing; pass --data FOLDER or set {DATA_VARIABLE}")
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise BenchmarkError(f"{path} is not one JSON string a line: {error}") from error
    if not all(isinstance(line, str) for line in lines):
        raise BenchmarkError(f"{path} is not one JSON string a line")
    return tuple(lines)
