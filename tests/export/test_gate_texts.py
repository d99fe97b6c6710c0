"""The texts that vectors are compared on: every kind, many lengths, and what a report says of each kind."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, save_sentence_transformers, save_transformers
from cross_encoders import save_cross_encoder
from tokenizers import Tokenizer

from fastembed_rt import cli, manifest
from fastembed_rt_export import quantize
from fastembed_rt_export.gate import long_texts
from fastembed_rt_export.gate.long_texts import LENGTH, REPEATED, SHARE, SHORT, UNITS, Reach, between, longest_compared
from fastembed_rt_export.gate.parity import Case, Comparison, by_kind, distances, parity_texts
from fastembed_rt_export.pipeline import ExportOptions, export

# As the gate's users know texts; "length" is made for each model.
KINDS = {
    *("empty", "whitespace", "one-token", "repeated", "punctuation", "digits", "other-script", "code", "mixed"),
    *("word", "question", "sentence", "paragraph", "long", "format", "unicode", "special-tokens"),
}


@pytest.fixture(scope="module")
def count(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], int]:
    """Tokens of a text, before any cut."""
    plain = save_transformers(tmp_path_factory.mktemp("count") / "plain")
    tokenizer = Tokenizer.from_file(str(plain / "tokenizer.json"))
    return lambda text: len(tokenizer.encode(text).ids)


def encoder(layers: int = 3, width: int = 24, **more: Any) -> Any:
    """As much of a checkpoint as the cost of a text depends on."""
    weights = {f"layer.{k}": SimpleNamespace(shape=(width, 12 * width)) for k in range(layers)}
    config = {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": 250_000}
    return SimpleNamespace(**{"config": config, "stored": weights, "is_static": False, **more})


def cost(layers: int, width: int, tokens: int) -> float:
    """Multiply-adds of a text."""
    return float(12 * layers * width**2 * tokens + 2 * layers * width * tokens**2)


# --- texts -----------------------------------------------------------------------------------------------------------


def test_every_kind_of_text_is_there_several_times_and_no_text_twice() -> None:
    texts = parity_texts()
    assert {case.kind for case in texts} == KINDS
    assert all(sum(case.kind == kind for case in texts) >= 3 for kind in KINDS - {"empty"})
    assert len({case.id for case in texts}) == len({case.text for case in texts}) == len(texts)


def test_int8_is_not_calibrated_on_what_it_is_measured_on() -> None:
    assert not {case.text for case in parity_texts()} & set(quantize.calibration_texts())


def test_kinds_are_what_they_say() -> None:
    texts = parity_texts()

    def of(kind: str) -> list[str]:
        return [case.text for case in texts if case.kind == kind]

    assert of("empty") == [""]
    assert all(text and not text.strip() for text in of("whitespace"))
    assert all(len(text.split()) == 1 for text in of("one-token"))
    alone = [text for text in of("punctuation") if not any(letter.isalnum() for letter in text)]
    assert len(alone) >= 8
    assert sum(not any(letter.isalpha() for letter in text) for text in of("digits")) >= 8
    assert all(max(text) > "\u0370" for text in of("other-script"))
    for text in of("repeated"):
        assert re.fullmatch(r"(.+?)\s*(?:\1\s*)+", text, re.DOTALL), text


@pytest.mark.parametrize("limit", [2, 3, 16, 48, 130, 512])
def test_texts_of_many_lengths_have_exactly_so_many_tokens(count: Callable[[str], int], limit: int) -> None:
    cases = between(Reach.of(encoder(), limit), count)
    lengths = [case for case in cases if case.kind == LENGTH]
    assert [count(case.text) for case in lengths] == [int(case.id.removeprefix("length-")) for case in lengths]
    # No text is shorter than its two special tokens; the limit itself has a case of its own.
    wanted = {*range(2, 5), 6, 8, 12, 15, 16, 17, 24, 31, 32, 33, 47, 48, 49, 63, 64, 65, 127, 128, 129, 256}
    assert {length for length in wanted if length < limit} <= {count(case.text) for case in lengths}
    assert (
        len({case.text[:20] for case in lengths if len(case.text) > 20}) > 3 or limit < 48
    )  # not one text's beginnings
    repeated = [case for case in cases if case.kind == REPEATED]
    assert [case.id for case in repeated] == [f"same-{name}-to-the-limit" for name in UNITS]
    for case, unit in zip(repeated, UNITS.values(), strict=True):
        assert not case.text.replace(unit.strip(), "").strip()
        assert count(case.text) <= limit < count(f"{case.text} {unit}")


def test_all_lengths_together_cost_no_more_than_their_share() -> None:
    small = Reach.of(encoder(6, 384), 256)
    assert (small.longest, small.repeated, small.lengths[-1]) == (256, 256, 192)
    base = Reach.of(encoder(12, 768), 8192)
    assert base.longest == 8192
    assert sum(cost(12, 768, length) for length in base.lengths) <= SHARE
    assert len(UNITS) * cost(12, 768, base.repeated) <= SHARE
    assert base.lengths[-1] >= 1024
    assert base.repeated >= 1024
    large = Reach.of(encoder(32, 4096), 32_768)
    assert large.longest == longest_compared(encoder(32, 4096), 32_768) == large.repeated == SHORT
    assert large.lengths == tuple(length for length in base.lengths if length < SHORT)
    table = Reach.of(encoder(is_static=True), 1 << 40)
    assert table.longest == table.repeated == long_texts.LONG_SUM
    assert table.lengths[-1] == 512


# --- reports ---------------------------------------------------------------------------------------------------------


def test_kinds_are_listed_with_the_worst_text_first() -> None:
    cosines = {"long": (0.99, 1.0), "digits": (0.98, 0.999), "empty": (0.985,)}
    compared = [
        Comparison(Case(f"{kind}-{k}", "", kind=kind), cosine, 0.0)
        for kind, found in cosines.items()
        for k, cosine in enumerate(found)
    ]
    assert by_kind(compared) == [
        {"kind": "digits", "n": 2, "mean_cosine": 0.9895, "min_cosine": 0.98},
        {"kind": "empty", "n": 1, "mean_cosine": 0.985, "min_cosine": 0.985},
        {"kind": "long", "n": 2, "mean_cosine": 0.995, "min_cosine": 0.99},
    ]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts to calibrate with, so few that some kinds suffer."""
    file = tmp_path_factory.mktemp("few") / "texts.txt"
    file.write_text("\n".join(text for text in TEXTS if text), encoding="utf-8")
    return file


def test_a_report_says_which_kinds_int8_serves_worst(
    tmp_path: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, output = save_sentence_transformers(tmp_path / "source", max_seq_length=40), tmp_path / "out"
    command = ["export", str(source), "-o", str(output), "--precision", "fp32,int8", "--min-cosine", "0.5"]
    assert cli.main([*command, "--calibration", str(few)]) == 0
    said, card = capsys.readouterr().out, (output / "README.md").read_text(encoding="utf-8")
    assert cli.main(["info", str(output)]) == 0
    info = capsys.readouterr().out
    for file, figures in manifest.read(output).parity["variants"].items():
        kinds = figures["kinds"]
        assert {row["kind"] for row in kinds} == {*KINDS, LENGTH}
        assert sum(row["n"] for row in kinds) == figures["comparisons"]
        assert kinds[0]["min_cosine"] == pytest.approx(figures["min_cosine"], abs=1e-6)
        assert [row["min_cosine"] for row in kinds] == sorted(row["min_cosine"] for row in kinds)
        mean = sum(row["n"] * row["mean_cosine"] for row in kinds) / figures["comparisons"]
        assert mean == pytest.approx(figures["mean_cosine"], abs=1e-5)
        line = f"{file}, worst kinds (how many) cosine mean / min: " + ", ".join(
            f"{row['kind']} ({row['n']}) {row['mean_cosine']:.4f} / {row['min_cosine']:.4f}" for row in kinds[:3]
        )
        for text in (said, card):
            assert (line in text) is (figures["precision"] == "int8")  # fp32 has none to speak of
        (about,) = [line for line in info.splitlines() if line.startswith(f"parity: {file}: ")]
        assert f"min_cosine {figures['min_cosine']}" in about
        for row in kinds[:3]:
            measure = "min_cosine" if "min_cosine" in row else "max_abs_diff"
            assert f"{row['kind']} ({row['n']}) {row[measure]:.6g}" in about


def test_a_rerankers_kinds_are_told_by_the_differences_of_logits(tmp_path: Path, few: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", labels=2)
    options = ExportOptions(output=tmp_path / "out", precisions=("int8",), min_cosine=0.5, calibration=few)
    report = export(str(source), options).manifest.parity
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for file, figures in report["variants"].items():
        kinds = figures["kinds"]
        assert sum(row["n"] for row in kinds) == figures["comparisons"]
        assert kinds[0]["max_abs_diff"] == figures["max_abs_diff"]
        assert [row["max_abs_diff"] for row in kinds] == sorted((row["max_abs_diff"] for row in kinds), reverse=True)
        assert all(0 <= row["mean_abs_diff"] <= row["max_abs_diff"] for row in kinds)
        first = kinds[0]
        told = f"{first['kind']} ({first['n']}) {first['mean_abs_diff']:.1e} / {first['max_abs_diff']:.1e}"
        assert f"- {file}, worst kinds (how many) difference mean / largest: {told}, " in card


def test_a_vector_without_a_word_is_like_another_and_unlike_all_others() -> None:
    some, none = [0.0, 0.3, 0.0], [0.0, 0.0, 0.0]
    cosine, _ = distances(np.array([some, none, some, none]), np.array([some, some, none, none]))
    assert cosine.tolist() == pytest.approx([1, 0, 0, 1])
    cosine, _ = distances(np.array([[np.nan, 1.0, 0.0]]), np.array([some]))
    assert np.isnan(cosine).all()  # which passes nothing
