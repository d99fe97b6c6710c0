"""Texts that int8 is calibrated on: some are as long as the model reads."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from checkpoints import save_sentence_transformers

from fastembed_rt.run.providers import OLDEST
from fastembed_rt_export import quantize
from fastembed_rt_export.errors import InvalidInputError, MissingDependencyError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.quantize import sample
from fastembed_rt_export.quantize.sample import side_by_side

OURS = quantize.calibration_texts()


def words(text: str) -> int:
    return len(text.split())


@pytest.mark.parametrize("max_length", [384, 512, 2_048, 8_192])
def test_texts_are_joined_to_some_as_long_as_the_model_reads(max_length: int) -> None:
    assert max(map(words, OURS)) < max_length, "or nothing has to be joined"
    made = quantize.long_texts(OURS, max_length)
    length = min(max_length, quantize.LONG_TOKENS)
    assert made
    assert all(words(text) >= length for text in made)
    assert len(set(made)) == len(made)
    assert sum(min(words(text), max_length) for text in made) <= 1.1 * max(quantize.LONG_TOKENS, length)


@pytest.mark.parametrize("max_length", [40, 128, 256])
def test_nothing_is_joined_where_texts_are_long_enough(max_length: int) -> None:
    assert quantize.long_texts(OURS, max_length) == []


@pytest.mark.parametrize("texts", [["a cat"], ["猫" * 50, "犬" * 30], [""], ["x " * 5000]])
def test_few_or_odd_texts_make_texts_of_bounded_length(texts: list[str]) -> None:
    made = quantize.long_texts(texts, 512)
    assert made
    assert max(map(len, made)) <= 512 * quantize.WORD_CHARACTERS + 2 * max(map(len, texts)) + 512


def test_ranges_are_seen_of_texts_as_long_as_the_model_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_sentence_transformers(
        tmp_path / "bert", max_seq_length=600, max_position_embeddings=600, num_hidden_layers=1
    )
    lengths: list[int] = []
    true = quantize.calibrate

    def calibrate(build: Any, sample: quantize.Sample, *others: Any, **options: Any) -> Any:
        lengths.extend(map(len, sample.rows))
        return true(build, sample, *others, **options)

    monkeypatch.setattr(quantize, "calibrate", calibrate)
    file = tmp_path / "texts.txt"
    file.write_text("the cat runs\nthe dog sleeps\n" * 20, encoding="utf-8")
    options = ExportOptions(
        output=tmp_path / "made", precisions=("int8",), verify=False, min_cosine=-1.0, calibration=file
    )
    export(str(source), options)
    assert np.count_nonzero(np.array(lengths) == 600) >= 3
    assert len(lengths) == 40 + 3 + len(quantize.degenerate_texts())


def test_an_onnxruntime_that_is_too_old_is_told_before_it_calibrates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", "1.20.0")
    with pytest.raises(MissingDependencyError, match=f"^calibration runs graphs: onnxruntime {OLDEST} or newer"):
        sample.session(tmp_path / "stage.onnx")


def test_words_of_the_vocabulary_are_tried_on_small_models_alone() -> None:
    vocabulary = [
        "[CLS]",
        "##ing",
        "7",
        "\u2581election",
        "\u0120elections",
        "to",
        *(f"word{'x' * k}" for k in range(30)),
    ]
    texts = quantize.rare_texts(vocabulary, 1e5)
    assert sorted(" ".join(texts).split()) == sorted(["election", "elections", *vocabulary[6:]])
    assert max(len(text.split()) for text in texts) == 8
    assert quantize.rare_texts(vocabulary, 1e8) == []
    assert quantize.rare_texts(vocabulary, 0.0) == []


def test_results_come_in_order_and_no_more_are_made_at_a_time_than_there_are_threads() -> None:
    lock, busy, most = threading.Lock(), 0, 0

    def work(number: int) -> int:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.02 if number % 3 == 0 else 0.001)  # the first of three is done last
        with lock:
            busy -= 1
        return number * number

    assert list(side_by_side(work, range(12), 2)) == [k * k for k in range(12)]
    assert most == 2
    assert list(side_by_side(work, [], 2)) == []


def test_an_error_in_one_of_several_is_raised() -> None:
    def work(number: int) -> int:
        return 1 // (number - 3)

    with pytest.raises(ZeroDivisionError):
        list(side_by_side(work, range(8), 2))


SEPARATORS = "one\u2028two\u2029three\x85four\x0bfive\x0csix\x1cseven"  # at all of which str.splitlines ends a line


def test_only_a_newline_ends_a_line_of_the_users_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(f"the cat\r\n\n  \n{SEPARATORS}\nlast\rof all".encode())
    lines = [json.dumps(SEPARATORS[:18], ensure_ascii=False), json.dumps({"text": "x\u2028y"}, ensure_ascii=False), ""]
    (tmp_path / "b.jsonl").write_bytes("\r\n".join(lines).encode())
    assert quantize.calibration_texts(tmp_path) == ["the cat", SEPARATORS, "last\rof all", SEPARATORS[:18], "x\u2028y"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": null}', "line 3 holds null, no text"),
        ('{"text": ["a"]}', r'line 3 holds \["a"\], no text'),
        ("7", "line 3 holds 7, no text"),
        ("null", "line 3 holds null, no text"),
        ('["a"]', r'line 3 holds \["a"\], no text'),
        ('{"words": "a"}', 'line 3 is an object without "text"'),
        ('{"text": "a"', "line 3 is no JSON"),
    ],
)
def test_a_line_that_holds_no_text_is_named(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(f'"a cat"\n\n{line}\n', encoding="utf-8")
    with pytest.raises(InvalidInputError, match=rf"{file.name}, {said}.*; pass a UTF-8 file"):
        quantize.calibration_texts(file)
