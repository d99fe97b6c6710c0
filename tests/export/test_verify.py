"""The parity gate: it passes good exports, and no altered graph, fact or number gets past it."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from checkpoints import PROMPTS, TEXTS, change_json, change_tensors, save_sentence_transformers, save_transformers
from exports import SHARE, contents, shorten_the_gate
from multi_vectors import save_multi_vector
from onnx import numpy_helper
from sentence_transformers import SentenceTransformer
from sparse_encoders import save_splade
from tolerances import close

from fastembed_rt import cli, manifest, native
from fastembed_rt.errors import FastembedRtError, ModelFormatError
from fastembed_rt.manifest import FileRecord, Manifest
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.errors import MissingDependencyError, ParityError
from fastembed_rt_export.gate import parity, verify
from fastembed_rt_export.gate.parity import FP32, Bounds, Case, Comparison, compare, parity_texts
from fastembed_rt_export.gate.verify import describe, details
from fastembed_rt_export.pipeline import ExportOptions, check_again, export

pytestmark = pytest.mark.usefixtures("short_gate")
Spoil = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint and its export, verified; tests work on copies."""
    base = tmp_path_factory.mktemp("originals")
    checkpoint = save_sentence_transformers(base / "checkpoint", prompts=PROMPTS, default_prompt_name="query")
    with pytest.MonkeyPatch.context() as patch:
        shorten_the_gate(patch)
        export(str(checkpoint), ExportOptions(output=base / "model"))
    return base


@pytest.fixture
def checkpoint(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals / "checkpoint", tmp_path / "checkpoint"))


@pytest.fixture
def model(originals: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(originals / "model", tmp_path / "model"))


def again(model: Path, checkpoint: Path) -> Manifest:
    return check_again(model, str(checkpoint), ExportOptions(), lambda _: None)


@pytest.mark.parametrize("name", ["passage", "corpus"])
@pytest.mark.parametrize(
    "save", [save_sentence_transformers, save_splade, save_multi_vector], ids=["embedding", "sparse", "late"]
)
def test_encode_document_has_the_prompt_that_the_checkpoint_has_for_it(
    tmp_path: Path, save: Callable[..., Path], name: str
) -> None:
    """sentence-transformers documents so, and finds an empty "document" of its own where the checkpoint has none."""
    prompts = {"query": "query: ", name: "the new red "}
    checkpoint = save(tmp_path / "checkpoint", prompts=prompts)
    change_json(checkpoint / "config_sentence_transformers.json", prompts=prompts)
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "model")).manifest
    assert (made.parity["status"], made.prompts) == ("passed", prompts)
    assert [note for note in made.notes if f"prompt_name={name!r}" in note]


@pytest.mark.parametrize("name", ["passage", "corpus", "document"])
def test_sentence_transformers_does_what_the_page_on_prompts_says_of_it(tmp_path: Path, name: str) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "checkpoint", prompts={name: "the new red "})
    change_json(checkpoint / "config_sentence_transformers.json", prompts={name: "the new red "})
    theirs = SentenceTransformer(str(checkpoint), device="cpu", local_files_only=True)
    found = theirs.encode_document(TEXTS)
    close(found, theirs.encode(TEXTS, prompt_name=name if name == "document" else None))
    if name != "document":
        assert np.abs(found - theirs.encode(TEXTS, prompt_name=name)).max() > 0.01


@pytest.mark.parametrize("own", ["", "a "])
def test_a_document_prompt_of_the_checkpoints_own_comes_first_also_an_empty_one(tmp_path: Path, own: str) -> None:
    prompts = {"document": own, "passage": "the new red "}
    checkpoint = save_sentence_transformers(tmp_path / "checkpoint", prompts=prompts)
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "model")).manifest
    assert made.parity["status"] == "passed"
    assert not [note for note in made.notes if "prompt_name" in note]


def test_document_prompts_are_those_also_of_a_reference_with_other_modules(tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "checkpoint")
    change_json(checkpoint / "config_sentence_transformers.json", prompts={"passage": "the new red "})
    options = ExportOptions(output=tmp_path / "model", overrides=Overrides(pooling=("cls",), normalize=False))
    assert export(str(checkpoint), options).manifest.parity["status"] == "passed"


def refusal(model: Path, checkpoint: Path) -> str:
    with pytest.raises(ParityError) as caught:
        again(model, checkpoint)
    return str(caught.value)


def change_manifest(model: Path, **changes: Any) -> None:
    replace(manifest.read(model), **changes).write(model)


def change_weight(model: Path, name: str, spoil: Spoil) -> None:
    """Alter one weight in model.onnx, where every fp32 graph reads it, and the hashes in the manifest with it."""
    file = model / "model.onnx"
    (tensor,) = [tensor for tensor in onnx.load(str(file)).graph.initializer if tensor.name == name]
    before, after = tensor.raw_data, spoil(numpy_helper.to_array(tensor).copy()).astype(np.float32).tobytes()
    body = file.read_bytes()
    assert body.count(before) == 1
    assert len(after) == len(before)
    file.write_bytes(body.replace(before, after))
    described = manifest.read(model)

    def record(old: FileRecord) -> FileRecord:
        return manifest.record_file(model, old.file)

    changed = [
        replace(variant, graph=record(variant.graph), weights=tuple(map(record, variant.weights)))
        for variant in described.variants
    ]
    replace(described, variants=tuple(changed)).write(model)


# --- good exports ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", ("max", "weightedmean")])
def test_a_good_export_passes(tmp_path: Path, include_prompt: bool, pooling: str | tuple[str, ...]) -> None:
    directory = save_sentence_transformers(
        tmp_path / "good",
        pooling=pooling,
        include_prompt=include_prompt,
        prompts=PROMPTS,
        default_prompt_name="passage",
        dense=10,
    )
    made = export(str(directory), ExportOptions(output=tmp_path / "out")).manifest
    report = made.parity
    assert report["status"] == "passed"
    assert report["prompts"] == ["document", "passage", "query"]
    assert report["texts"] > len(parity_texts()[::SHARE]) + 3  # some under each prompt
    assert set(report["variants"]) == {variant.graph.file for variant in made.variants}
    for figures in report["variants"].values():
        assert figures["min_cosine"] >= 0.99999
        assert 0 < figures["max_abs_diff"] <= 1e-5
        assert figures["comparisons"] > report["texts"]  # some once more, alone


def test_the_whole_gate_has_all_texts_and_a_selection_under_each_prompt(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    report = export(str(checkpoint), ExportOptions(output=tmp_path / "out")).manifest.parity
    assert report["status"] == "passed"
    assert report["prompts"] == ["document", "passage", "query"]
    assert report["texts"] > len(parity_texts()) + 3 * 20


@pytest.mark.parametrize(
    "model_type",
    [
        "mpnet",
        "roberta",
        "distilbert",
    ],
)
def test_a_plain_transformers_directory_passes(tmp_path: Path, model_type: str) -> None:
    directory = save_transformers(tmp_path / model_type, model_type)
    made = export(str(directory), ExportOptions(output=tmp_path / "out"))
    assert made.manifest.parity["status"] == "passed"


def test_the_report_is_in_the_manifest_and_in_the_card(model: Path) -> None:
    report = manifest.read(model).parity
    assert report["status"] == "passed"
    assert re.search(r"sentence-transformers \d.*transformers \d.*torch \d.*float32 on CPU", report["reference"])
    card = (model / "README.md").read_text(encoding="utf-8")
    assert f"Parity with the checkpoint: passed on {report['texts']} texts against {report['reference']}" in card
    assert "\n\n\n" not in card
    assert "model.onnx" in report["variants"]
    for file, figures in report["variants"].items():
        assert figures["bounds"] == {"min_cosine": 0.99999, "max_abs_diff": 1e-5}
        assert len(figures["worst"]) == 3
        assert {"id", "call", "prompt", "cosine", "max_abs_diff"} == set(figures["worst"][0])
        assert figures["worst"][0]["cosine"] == figures["min_cosine"]
        assert f"- {file}: cosine mean " in card


def test_verifying_again_passes_with_the_same_figures(model: Path, checkpoint: Path) -> None:
    before, after = manifest.read(model).parity, again(model, checkpoint).parity
    assert {**before, "seconds": 0} == {**after, "seconds": 0}


# --- what must not pass ----------------------------------------------------------------------------------------------


def assert_names_the_worst(message: str) -> None:
    """Number of failures, bounds, and up to five texts with their figures, worst first."""
    assert re.match(r"model\.\S+onnx: \d+ of \d+ comparisons with sentence-transformers", message)
    assert "(cosine >= 0.99999, difference <= 1e-05)" in message
    worst = message.partition("worst: ")[2].split("; ")
    ids = {case.id for case in parity_texts()}
    made = re.compile(r"as-long-as-max-length|length-\d+|same-\w+-to-the-limit")
    cosines = []
    for entry in worst:
        case = r"(\S+?)(?: by \w+)?(?: under prompt '\w+'| without a prompt)?"
        found = re.fullmatch(case + r": cosine (nan|-?\d\.\d{6}), difference (nan|\d\.\d\de[+-]\d\d)", entry)
        assert found is not None, entry
        assert found[1] in ids or made.fullmatch(found[1])
        cosines.append(float(found[2]))
    assert 1 <= len(worst) <= 5
    assert np.isnan(cosines).any() or cosines == sorted(cosines)


QUERY = "encoder.layer.1.attention.self.query.weight.scaled.T"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda array: array * 1.01,
        lambda array: array + 1e-3,
        lambda array: np.roll(array, 1, axis=1),
        lambda array: array.astype(np.float16).astype(np.float32),
        np.zeros_like,
    ],
    ids=["scaled", "shifted", "rolled", "rounded to half precision", "zero"],
)
def test_an_altered_weight_of_the_graph_fails(model: Path, checkpoint: Path, spoil: Spoil) -> None:
    change_weight(model, QUERY, spoil)
    assert_names_the_worst(refusal(model, checkpoint))


def test_one_altered_row_of_the_word_table_fails_on_the_texts_that_have_it(model: Path, checkpoint: Path) -> None:
    row = 5 + 1  # "a"

    def spoil(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        array[row, 0] += 0.01
        return array

    change_weight(model, "embeddings.word_embeddings.weight", spoil)
    message = refusal(model, checkpoint)
    assert_names_the_worst(message)
    found = re.search(r"(\d+) of (\d+) comparisons", message)
    assert found is not None
    assert 0 < int(found[1]) < int(found[2])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_vector_that_is_not_finite_fails(model: Path, checkpoint: Path, bad: float) -> None:
    change_weight(model, "embeddings.LayerNorm.weight", lambda array: np.full_like(array, bad))
    assert_names_the_worst(refusal(model, checkpoint))


@pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_not_loaded(model: Path, checkpoint: Path, bad: float) -> None:
    change_weight(model, QUERY, lambda array: np.full_like(array, bad))
    with pytest.raises(ModelFormatError, match="Fp32Attention: input_values has elements that are not finite"):
        again(model, checkpoint)


def passes(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32], bound: Bounds = FP32) -> bool:
    (entry,) = compare([Case("x", "text")], a, b)
    return entry.within(bound)


def test_comparisons_with_nan_do_not_pass() -> None:
    good = np.array([[0.6, 0.8]], np.float32)
    for bound in (FP32, Bounds(0.9)):
        assert passes(good, good, bound)
        for a, b in (
            (good * np.nan, good),
            (good, good * np.nan),
            (good * np.nan, good * np.nan),
            (good * np.inf, good),
        ):
            assert not passes(a, b, bound)
    assert not Comparison(Case("x", "text"), 1.0, float("nan")).within(FP32)
    assert not Comparison(Case("x", "text"), float("nan"), 0.0).within(FP32)


def test_bounds_hold_on_both_sides() -> None:
    case = Case("x", "text")
    assert Comparison(case, 0.99999, 1e-5).within(FP32)
    assert not Comparison(case, 0.999989, 0.0).within(FP32)
    assert not Comparison(case, 1.0, 1.01e-5).within(FP32)
    zero, unit = np.zeros((1, 2), np.float32), np.array([[1.0, 0.0]], np.float32)
    assert passes(zero, zero)
    assert not passes(zero, unit)
    assert not passes(unit, zero)
    assert not passes(-unit, unit)
    # Long vectors are held to the same relative difference, short ones to an absolute one.
    assert passes(1000 * unit + 0.005, 1000 * unit)
    assert not passes(1000 * unit + 0.02, 1000 * unit)


@pytest.mark.parametrize("pooling", ["cls", "max", "weightedmean", "mean_sqrt_len_tokens"])
def test_another_pooling_than_the_checkpoints_fails(tmp_path: Path, pooling: str) -> None:
    directory = save_sentence_transformers(tmp_path / "checkpoint", normalize=False)
    export(str(directory), ExportOptions(output=tmp_path / "model", verify=False))
    change_json(directory / "1_Pooling" / "config.json", pooling_mode=pooling)
    assert_names_the_worst(refusal(tmp_path / "model", directory))


@pytest.mark.parametrize("normalize", [True, False])
def test_another_normalization_than_the_checkpoints_fails(tmp_path: Path, normalize: bool) -> None:
    directory = save_sentence_transformers(tmp_path / "checkpoint", normalize=normalize)
    export(str(directory), ExportOptions(output=tmp_path / "model", verify=False))
    other = save_sentence_transformers(tmp_path / "other", normalize=not normalize)
    assert_names_the_worst(refusal(tmp_path / "model", other))


def test_another_max_length_than_the_checkpoints_fails(model: Path, checkpoint: Path) -> None:
    change_json(checkpoint / "sentence_bert_config.json", max_seq_length=20)
    assert re.match(r"tokenized differently: .*: \d+ against 20 tokens", refusal(model, checkpoint))


def test_another_prompt_than_the_checkpoints_fails_and_is_named(
    model: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # the whole gate: which text is the first to differ is part of this
    change_manifest(model, prompts={**PROMPTS, "document": "", "query": "Query: the "})
    message = refusal(model, checkpoint)
    assert message.startswith("tokenized differently: ")
    assert "the first difference at token 3: 'the' against '[SEP]'" in message


def test_a_tokenizer_that_splits_otherwise_fails(model: Path, checkpoint: Path) -> None:
    change_json(model / "tokenizer.json", normalizer=None)
    change_manifest(model, tokenizer=manifest.record_file(model, "tokenizer.json"))
    assert refusal(model, checkpoint).startswith("tokenized differently: ")


def test_a_prompt_that_the_manifest_lacks_fails(model: Path, checkpoint: Path) -> None:
    change_manifest(model, prompts={"query": "query: "})
    assert "passage" in refusal(model, checkpoint)


def test_a_prompt_that_the_checkpoint_lacks_fails(model: Path, checkpoint: Path) -> None:
    config = checkpoint / "config_sentence_transformers.json"
    change_json(config, prompts={"query": "query: ", "document": ""})
    assert "passage" in refusal(model, checkpoint)


@pytest.mark.parametrize(
    "changes", [{"default_prompt_name": None}, {"default_prompt_name": "passage"}, {"similarity": "dot"}]
)
def test_a_fact_of_the_manifest_that_the_checkpoint_does_not_have_fails(
    model: Path, checkpoint: Path, changes: dict[str, Any]
) -> None:
    change_manifest(model, **changes)
    assert next(iter(changes)) in refusal(model, checkpoint)


def test_a_checkpoint_of_another_width_fails(model: Path, tmp_path: Path) -> None:
    other = save_sentence_transformers(tmp_path / "wide", hidden_size=48, prompts=PROMPTS, default_prompt_name="query")
    assert "48" in refusal(model, other)


def test_a_failed_gate_leaves_nothing_behind(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "FP32", Bounds(2.0, 1e-5))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ParityError, match=r"worst: .+: cosine 1\.000000"):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out"))
    assert sorted(tmp_path.iterdir()) == before


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_passes_with_exit_code_0(model: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (model / "manifest.json").read_bytes()
    assert cli.main(["verify", str(model), "--against", str(checkpoint)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("parity: passed on ")
    assert "note: the weights" not in said.err
    assert (model / "manifest.json").read_bytes() == before


def test_the_command_says_nothing_when_quiet(model: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(model), "--against", str(checkpoint), "-q"]) == 0
    assert capsys.readouterr().out == ""


def test_the_command_fails_with_exit_code_4_and_writes_nothing(
    model: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_weight(model, QUERY, lambda array: array * 1.5)
    before = contents(model)
    assert cli.main(["verify", str(model), "--against", str(checkpoint), "--write"]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert "comparisons with sentence-transformers" in said.err.splitlines()[-1]
    assert contents(model) == before


def test_the_command_writes_the_report_when_asked(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export(str(checkpoint), ExportOptions(output=out, verify=False))
    assert manifest.read(out).parity == {"status": "not verified", "reason": "not asked for"}
    assert cli.main(["verify", str(out), "--against", str(checkpoint), "--write"]) == 0
    assert manifest.read(out).parity["status"] == "passed"
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "Parity with the checkpoint: passed on" in card
    assert "not verified" not in card


def test_another_checkpoint_is_noticed(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = save_sentence_transformers(tmp_path / "other", seed=7, prompts=PROMPTS)
    assert cli.main(["verify", str(model), "--against", str(other)]) == 4
    assert f"note: the weights of {other} are not those that {model} was exported from" in capsys.readouterr().err


def test_a_changed_weight_of_the_checkpoint_is_noticed_even_when_no_vector_shows_it(
    model: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_tensors(checkpoint, lambda tensors: tensors.update({"pooler.dense.bias": np.ones(24, np.float32)}))
    assert cli.main(["verify", str(model), "--against", str(checkpoint)]) == 0
    assert "note: the weights of" in capsys.readouterr().err


def test_a_directory_without_a_manifest_is_not_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["verify", str(tmp_path)]) == 3
    assert "manifest.json" in capsys.readouterr().err


# --- without the reference -------------------------------------------------------------------------------------------


@pytest.fixture(params=["torch", "sentence_transformers"])
def absent(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package that is not installed."""
    monkeypatch.setitem(sys.modules, request.param, None)
    yield str(request.param).replace("_", "-")


def test_a_directory_that_is_not_there_is_said_to_be_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for against in ([], ["--against", str(tmp_path)]):
        assert cli.main(["verify", str(tmp_path / "none"), *against]) == 3
        said = capsys.readouterr().err
        assert f"model directory {tmp_path / 'none'} does not exist; check the path" in said
        assert "export" not in said


def test_an_export_without_the_reference_is_not_verified_and_says_so(
    checkpoint: Path, tmp_path: Path, absent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export", str(checkpoint), "-o", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    assert f"parity: not verified ({absent} not installed)" in said.out
    assert f"parity: not verified ({absent} not installed)" in said.err
    reason = {"status": "not verified", "reason": f"{absent} not installed"}
    assert manifest.read(tmp_path / "out").parity == reason
    assert f"not verified ({absent} not installed)" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_the_command_without_the_reference_says_what_to_install(
    model: Path, checkpoint: Path, absent: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["verify", str(model), "--against", str(checkpoint)]) == 5
    last = capsys.readouterr().err.splitlines()[-1]
    assert f"{absent} not installed" in last
    assert "pip install 'fastembed-rt[verify]'" in last


def test_the_missing_packages_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert verify.can_verify() == "torch and sentence-transformers not installed"
    assert issubclass(MissingDependencyError, FastembedRtError)


def test_reports_are_described_in_one_line(model: Path) -> None:
    assert describe({"status": "not verified"}) == "not verified"
    assert describe({"status": "not verified", "reason": "torch not installed"}) == "not verified (torch not installed)"
    report = manifest.read(model).parity
    assert describe(report).startswith("passed on ")
    assert len(details(report)) == len(manifest.read(model).variants) + len(report["calls"])
    assert not any("\n" in line for line in [describe(report), *details(report)])
