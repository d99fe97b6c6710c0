"""Scores of Unigram models reach the tokenizers library to the last bit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from tokenizer_cases import CASES
from tokenizer_files import Described
from tokenizer_texts import HAS_DATA
from tokenizers import Tokenizer

from fastembed_rt_export.tokenizer import tokenizer_json
from fastembed_rt_export.tokenizer.piece_scores import as_read, exact, literal

needs_data = pytest.mark.skipif(not HAS_DATA, reason="no data folder; FASTEMBED_RT_DATA says where it is")
SINGLE = [float(score) for score in -np.random.default_rng(0).uniform(0, 25, 20_000).astype(np.float32)]
DOUBLE: list[float] = (-np.random.default_rng(1).uniform(0, 25, 20_000)).tolist()
ODD = [0.0, -0.0, -1.0, 5.5, -1e-7, 2.5e-8, -1e22, -123456.789]


def file(literals: list[str]) -> str:
    pieces = ",".join(f'["piece{number}",{one}]' for number, one in enumerate(literals))
    return f'{{"version":"1.0","added_tokens":[],"model":{{"type":"Unigram","unk_id":0,"vocab":[{pieces}]}}}}'


def read(text: str) -> list[float]:
    return [score for _, score in json.loads(Tokenizer.from_str(text).to_str())["model"]["vocab"]]


@pytest.mark.parametrize("write", [repr, literal, "{:.20f}".format, "{:.16e}".format])
def test_numbers_are_read_as_the_library_reads_them(write: object) -> None:
    assert callable(write)
    literals = [write(score) for score in (*SINGLE, *DOUBLE, *ODD)]
    literals = [one if "." in one or "e" in one else f"{one}.0" for one in literals]
    assert [as_read(one) for one in literals] == read(file(literals))


def test_scores_are_written_so_that_they_are_read_again() -> None:
    scores = [*SINGLE, *DOUBLE, *ODD]
    before = file([repr(float(score)) for score in scores])
    wrong = [sum(a != b for a, b in zip(read(text), scores, strict=True)) for text in (before, exact(before))]
    assert wrong[0] > 0.1 * len(scores)
    assert wrong[1] < 0.003 * len(scores)


def test_a_file_without_such_scores_stays_as_it_is() -> None:
    plain = file(["-1.5", "-2.25", "-3"])
    assert exact(plain) is plain
    words = '{"model": {"type": "WordLevel", "vocab": {"a": 0}}}'
    assert exact(words) is words


@needs_data
def test_a_row_of_dashes_is_split_as_transformers_splits_it(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.source == "t5-small")
    made = tokenizer_json.load(Described(case.at(tmp_path)))  # type: ignore[arg-type]
    ours, theirs = Tokenizer.from_str(made.text), transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    rows = ["-" * number for number in range(1, 120)]
    assert [encoding.ids for encoding in ours.encode_batch(rows)] == theirs(rows)["input_ids"]
    alone = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [encoding.ids for encoding in alone.encode_batch(rows)] != theirs(rows)["input_ids"]
