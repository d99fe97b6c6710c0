"""Tasks that vectors are good or bad at: read from a data folder or from a data set of the hub, scored by scores.py.

stsb/stsb-<language>-dev.csv    two sentences and a score a line, no head: sentence-transformers' multilingual STS-B
sick/SICK_test_annotated.txt    SICK as published: tab-separated with a head; or SICK.txt, of which TEST is taken
sts/<name>/                     MTEB's layout: test.jsonl.gz or test.jsonl with sentence1, sentence2, score a line
retrieval/<name>/               BEIR's layout: corpus.jsonl, queries.jsonl, qrels/<split>.tsv (or qrels.tsv)

A data set of the hub is one of the last two, whichever its files say.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastembed_rt import FastembedRtError
from fastembed_rt.hub.client import Repository

from ..errors import BenchmarkError
from . import scores
from .scores import Vectors

SPEARMAN, NDCG, RECALL = "spearman", "ndcg@10", "recall@10"
SPLITS = ("test", "dev", "train")  # of relevance judgements; the first that is there is taken
SICK_FILES = ("SICK_test_annotated.txt", "SICK.txt")
CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
PAIRS = ("test.jsonl.gz", "test.jsonl")
PAIR = ("sentence1", "sentence2", "score")
Files = Callable[[str], Path | None]  # where a file of a data set is, by its name there


@dataclass(frozen=True, kw_only=True)
class Task:
    """Texts to encode, and what their vectors are worth: (n, dim) -> percent by metric."""

    name: str
    metrics: tuple[str, ...]
    texts: list[str]
    scores: Callable[[Vectors], dict[str, float]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which tasks, beyond those that the data folder has."""
    parser.add_argument(
        "--languages", default="en", help="of STS-B, separated by commas; the folder may have de, ru, zh"
    )
    parser.add_argument(
        "--hub",
        default="",
        help="data sets of the hub, separated by commas: in BEIR's layout (mteb/scifact), or sentence pairs "
        "(mteb/stsbenchmark-sts, mteb/sickr-sts)",
    )


def words_of(given: str) -> list[str]:
    """The words of a list separated by commas."""
    return [word.strip() for word in given.split(",") if word.strip()]


def find(data: Path, languages: Sequence[str], hub: Sequence[str]) -> tuple[list[Task], list[tuple[str, str]]]:
    """The tasks that are there; name and reason of those that are not.

    Raises:
        BenchmarkError: a file is there and is not what it should be.
    """
    tasks: list[Task] = []
    skipped: list[tuple[str, str]] = []
    for language in languages:
        name, file = f"STS-B dev ({language})", data / "stsb" / f"stsb-{language}-dev.csv"
        if file.is_file():
            tasks.append(stsb(name, file))
        else:
            skipped.append((name, f"no stsb/{file.name} in the data folder"))
    sick_file = next((file for name in SICK_FILES if (file := data / "sick" / name).is_file()), None)
    if sick_file is not None:
        tasks.append(sick("SICK test", sick_file))
    else:
        skipped.append(("SICK test", f"no sick/{' or sick/'.join(SICK_FILES)} in the data folder"))
    tasks += [sentence_pairs(folder.name, folder.joinpath) for folder in _folders(data / "sts")]
    folders = _folders(data / "retrieval")
    if not folders and not hub:
        skipped.append(("retrieval", "no retrieval/<name>/ in the data folder"))
    tasks += [retrieval(folder.name, folder.joinpath) for folder in folders]
    for name in hub:
        try:
            path = _from_hub(name)
            tasks.append((sentence_pairs if path(CORPUS) is None else retrieval)(name, path))
        except FastembedRtError as error:
            skipped.append((name, str(error)))
    return tasks, skipped


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("*/") if path.is_dir())


def stsb(name: str, file: Path) -> Task:
    """Sentence pairs of a CSV file without a head."""
    with file.open(encoding="utf-8", newline="") as stream:
        return _pairs(name, file, list(csv.reader(stream)))


def sick(name: str, file: Path) -> Task:
    """Sentence pairs of SICK's own file; of the one that holds all sets, the test set."""
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    columns = ("sentence_A", "sentence_B", "relatedness_score")
    missing = [column for column in columns if not rows or column not in rows[0]]
    if missing:
        raise BenchmarkError(f"{file} is not SICK's table: no column {', '.join(missing)}, or no rows")
    chosen = [row for row in rows if (row.get("SemEval_set") or "TEST") == "TEST"]
    return _pairs(name, file, [[row[column] for column in columns] for row in chosen])


def sentence_pairs(name: str, path: Files) -> Task:
    """Sentence pairs in MTEB's layout; `path` says where a file is, or that there is none.

    Raises:
        BenchmarkError: no such file, or a malformed one.
    """
    for file in PAIRS:
        found = path(file)
        if found is not None and found.is_file():
            rows = [[entry[key] for key in PAIR] for entry in _entries(name, file, found, PAIR)]
            return _pairs(name, found, rows)
    raise BenchmarkError(f"{name}: neither {CORPUS} (BEIR's layout) nor {' or '.join(PAIRS)} (sentence pairs) is there")


def retrieval(name: str, path: Files) -> Task:
    """Queries and documents in BEIR's layout; `path` says where a file is, or that there is none.

    Raises:
        BenchmarkError: a file is missing or malformed.
    """
    corpus, queries = (_entries(name, file, path(file), ("_id", "text")) for file in (CORPUS, QUERIES))
    judged = _judgements(name, path)
    asked = [entry for entry in queries if any(gain > 0 for gain in judged.get(entry["_id"], {}).values())]
    if not asked or not corpus:
        raise BenchmarkError(f"{name}: {CORPUS} has {len(corpus)} documents, {QUERIES} {len(asked)} judged queries")
    documents = [f"{entry.get('title') or ''} {entry['text']}".strip() for entry in corpus]
    query_ids, document_ids = ([entry["_id"] for entry in entries] for entries in (asked, corpus))
    count = len(asked)

    def score(vectors: Vectors) -> dict[str, float]:
        return scores.retrieval(vectors[:count], vectors[count:], query_ids, document_ids, judged)

    texts = [*(entry["text"] for entry in asked), *documents]
    return Task(name=name, metrics=(NDCG, RECALL), texts=texts, scores=score)


def _pairs(name: str, file: Path, rows: Iterable[Sequence[str]]) -> Task:
    left, right, wanted = [], [], []
    for number, row in enumerate(rows, start=1):
        try:
            first, second, score = row[0], row[1], float(row[2])
        except (IndexError, ValueError, TypeError):
            raise BenchmarkError(f"{file}: row {number} is not two sentences and a score") from None
        left.append(first)
        right.append(second)
        wanted.append(score)
    if len(set(wanted)) < 2:
        raise BenchmarkError(f"{file} has no pairs with different scores")
    count = len(left)
    return Task(
        name=name,
        metrics=(SPEARMAN,),
        texts=[*left, *right],
        scores=lambda vectors: {SPEARMAN: scores.similarity(vectors[:count], vectors[count:], wanted)},
    )


def _entries(name: str, file: str, path: Path | None, keys: Sequence[str]) -> list[dict[str, Any]]:
    if path is None or not path.is_file():
        raise BenchmarkError(f"{name}: {file} is missing, so this is not BEIR's layout")
    try:
        packed = path.read_bytes()
        text = (gzip.decompress(packed) if file.endswith(".gz") else packed).decode("utf-8")
        # A text may hold other things that splitlines() splits at.
        entries = [json.loads(line) for line in text.split("\n") if line.strip()]
    except (ValueError, EOFError, OSError, zlib.error) as error:
        raise BenchmarkError(f"{name}: {file} is not one JSON object a line: {error}") from error
    if not all(isinstance(entry, dict) and set(keys) <= entry.keys() for entry in entries):
        raise BenchmarkError(f"{name}: {file} needs {', '.join(keys[:-1])} and {keys[-1]} in every line")
    return entries


def _judgements(name: str, path: Files) -> dict[str, dict[str, int]]:
    candidates = [*(f"qrels/{split}.tsv" for split in SPLITS), "qrels.tsv"]
    for candidate in candidates:
        file = path(candidate)
        if file is not None and file.is_file():
            break
    else:
        raise BenchmarkError(f"{name}: none of {', '.join(candidates)} is there, so this is not BEIR's layout")
    judged: dict[str, dict[str, int]] = defaultdict(dict)
    for line in file.read_text(encoding="utf-8").splitlines()[1:]:  # the first names the columns
        try:
            query, document, gain = line.split("\t")
            judged[query][document] = int(gain)
        except ValueError:
            raise BenchmarkError(f"{name}: {candidate} has a line that is not query, document, score") from None
    return judged


def _from_hub(name: str) -> Files:
    """Files of a data set repository by name, one commit for all of them, from the cache where it has them."""
    repository = Repository(name, None, None, None, local_files_only=False, repo_type="dataset")
    corpus = repository.fetch(CORPUS)
    commit = None
    if corpus is not None:
        commit = corpus.parent.name
    return lambda file: repository.fetch(file, commit)
