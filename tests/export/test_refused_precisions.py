"""A precision that does not pass is left out, named and explained; what passes is there, whole."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import FP32_FILES, OWN_FP32, PROMPTS, TEXTS, change_tensors, save_sentence_transformers
from cross_encoders import save_cross_encoder
from exports import contents, quick, shorten_the_gate
from multi_vectors import save_multi_vector
from routed import dense, normalize, router, save, static, transformer
from sparse_encoders import save_splade

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel, cli, manifest, native
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.files import check_file
from fastembed_rt.manifest import Manifest, Refused, Variant
from fastembed_rt.precisions import made_for
from fastembed_rt_export import tasks
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.gate import parity, report
from fastembed_rt_export.gate.parity import Bounds
from fastembed_rt_export.gate.refusals import Refusals, left
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.variants import calibrated, making

pytestmark = pytest.mark.usefixtures("short_gate")

BOTH = ("int8", "fp32")
BESIDE = {"manifest.json", "README.md"}
# A floor that no int8 graph of a random checkpoint reaches, float as many of its layers may be.
TOO_MUCH = 0.9999999


def assert_whole(directory: Path) -> Manifest:
    """The directory has the files that its manifest names, as they were recorded, and no others."""
    described = manifest.read(directory)
    assert set(contents(directory)) == {*BESIDE, *(record.file for record in described.files)}
    for record in described.files:
        check_file(directory, record)
    for encoder in (described, *described.routes.values()):
        assert encoder.refused == described.refused
        assert not {made_for(variant) for variant in encoder.variants} & {
            (o.target, o.precision) for o in encoder.refused
        }
        assert encoder.default == encoder.variants[0]
    return described


@pytest.fixture(scope="session")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts to calibrate with: what becomes of int8 is what matters here, not how near it is."""
    file = tmp_path_factory.mktemp("few") / "texts.txt"
    file.write_text("\n".join(text for text in TEXTS if text))
    return file


def beyond(monkeypatch: pytest.MonkeyPatch, *precisions: str) -> None:
    """From here on no graph of these precisions is near enough to the reference."""

    def bounds(precision: str, min_cosine: float) -> Bounds:
        return Bounds(2.0) if precision in precisions else parity.bounds(precision, min_cosine)

    for module in ("gate.report", "tasks.reranking_parity"):
        monkeypatch.setattr(f"fastembed_rt_export.{module}.bounds", bounds)


# --- what is left ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one layer: where nothing passes, one group of layers after another is tried in float."""
    directory = tmp_path_factory.mktemp("checkpoint") / "mini"
    return save_sentence_transformers(directory, prompts=PROMPTS, default_prompt_name="query", num_hidden_layers=1)


@pytest.fixture(scope="module")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export in fp32, verified; no test changes it."""
    output = tmp_path_factory.mktemp("model") / "mini-onnx"
    with pytest.MonkeyPatch.context() as patch:
        shorten_the_gate(patch)
        export(str(checkpoint), ExportOptions(output=output))
    return output


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory, checkpoint: Path, few: Path) -> Path:
    """An export of int8 and fp32 whose int8 is too far from fp32; no test changes it."""
    output = tmp_path_factory.mktemp("refused") / "model"
    options = ExportOptions(output=output, precisions=BOTH, calibration=few, min_cosine=TOO_MUCH)
    with pytest.MonkeyPatch.context() as patch:
        shorten_the_gate(patch)
        done = export(str(checkpoint), options)
    assert done.refused == done.manifest.refused
    return output


def test_int8_too_far_from_fp32_is_left_out_and_the_rest_is_what_it_is_alone(
    refused: Path, model: Path, checkpoint: Path
) -> None:
    described = assert_whole(refused)
    (one,) = described.refused
    assert (one.precision, one.target) == ("int8", "cpu")
    assert f"asked for {TOO_MUCH} or more" in one.why
    assert described.parity["status"] == "passed"
    assert set(described.parity["variants"]) == {variant.graph.file for variant in described.variants}
    alone = manifest.read(model)  # of fp32 alone
    assert (described.variants, described.default_variant) == (alone.variants, alone.default_variant)
    with EmbeddingModel(refused) as ours, EmbeddingModel(model) as theirs:
        np.testing.assert_array_equal(ours.encode(TEXTS), theirs.encode(TEXTS))


def test_asking_for_what_was_refused_says_why(refused: Path) -> None:
    with pytest.raises(InvalidInputError) as caught:
        EmbeddingModel(refused, precision="int8")
    said = str(caught.value)
    assert re.search(r"the export refused it \(int8 vectors.* are too far from fp32: cosine mean", said)
    assert "this model directory has fp32 (cpu)" in said
    with pytest.raises(InvalidInputError, match="'int4' is not a precision"):
        EmbeddingModel(refused, precision="int4")


def test_card_and_info_name_what_was_refused(refused: Path, capsys: pytest.CaptureFixture[str]) -> None:
    why = manifest.read(refused).refused[0].why
    assert f"Left out, since it does not pass: int8 for target cpu: {why}." in (refused / "README.md").read_text()
    assert cli.main(["info", str(refused)]) == 0
    assert re.search(rf"^left out +int8 for target cpu: {re.escape(why)}$", capsys.readouterr().out, re.MULTILINE)
    assert cli.main(["info", str(refused), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["manifest"]["refused"] == [
        {"precision": "int8", "target": "cpu", "why": why}
    ]


def test_verifying_it_again_passes_and_keeps_the_record(
    refused: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from fastembed_rt_export.pipeline import check_again

    again = check_again(refused, str(checkpoint), ExportOptions(), lambda _: None)
    assert again.parity["status"] == "passed"
    assert again.refused == manifest.read(refused).refused


def test_the_command_ends_with_4_and_says_what_is_left_out(
    checkpoint: Path, tmp_path: Path, few: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", str(checkpoint), "--precision", "int8,fp32", "--min-cosine", str(TOO_MUCH)]
    command += ["--no-verify", "--calibration", str(few)]
    assert cli.main([*command, "-o", str(tmp_path / "out")]) == ParityError.exit_code == 4
    said = capsys.readouterr()
    assert re.search(r"\] left out: int8 for target cpu: int8 vectors.* are too far from fp32", said.err)
    assert re.match(r"  left out: int8 for target cpu: int8 vectors.* are too far", said.out.splitlines()[-1])
    assert_whole(tmp_path / "out")
    assert cli.main([*command, "-o", str(tmp_path / "quiet"), "--quiet"]) == 4
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("left out: int8 for target cpu: ")
    assert len(said.err.splitlines()) == 1
    assert cli.main([*command, "--min-cosine", "-1", "-o", str(tmp_path / "all"), "-q"]) == 0
    assert not assert_whole(tmp_path / "all").refused


# --- what refuses ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("far", "rest"), [("int8", "fp32"), ("fp32", "int8")])
def test_what_is_too_far_from_the_reference_is_left_out_with_all_its_graphs(
    checkpoint: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch, far: str, rest: str
) -> None:
    beyond(monkeypatch, far)
    made = export(
        str(checkpoint), ExportOptions(output=tmp_path / "out", precisions=BOTH, calibration=few, min_cosine=0.9)
    )
    described = assert_whole(tmp_path / "out")
    assert {variant.precision for variant in described.variants} == {rest}
    assert [(one.precision, one.target) for one in made.refused] == [(far, "cpu")]
    assert "comparisons with sentence-transformers" in made.refused[0].why
    assert set(described.parity["variants"]) == {variant.graph.file for variant in described.variants}
    assert (tmp_path / "out" / "model.onnx").exists() == (rest == "fp32")


@pytest.mark.skipif(native.kernels() is None, reason=f"target native does not run here: {native.why_not()}")
def test_one_graph_of_a_precision_out_of_bounds_takes_the_other_with_it(
    checkpoint: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A directory has int8 or not: which of its graphs a machine runs must not decide that."""
    true = report._figures

    def figures(precision: str, compared: Any, bound: Bounds) -> dict[str, Any]:
        found = true(precision, compared, bound)
        if precision == "int8" and not seen:
            seen.append(precision)
            raise ParityError("model.native.int8.onnx: too far")
        return found

    seen: list[str] = []
    monkeypatch.setattr(report, "_figures", figures)
    export(str(checkpoint), ExportOptions(output=tmp_path / "out", precisions=BOTH, calibration=few, min_cosine=0.9))
    described = assert_whole(tmp_path / "out")
    assert [variant.graph.file for variant in described.variants] == FP32_FILES
    assert described.refused[0].why == "model.native.int8.onnx: too far"


@pytest.mark.parametrize("force", [False, True])
def test_where_nothing_passes_nothing_is_written(
    checkpoint: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch, force: bool
) -> None:
    output = tmp_path / "out"
    if force:
        quick(checkpoint, output)
    before = contents(tmp_path)
    beyond(monkeypatch, *BOTH)
    with pytest.raises(ParityError) as caught:
        export(
            str(checkpoint), ExportOptions(output=output, precisions=BOTH, calibration=few, min_cosine=0.9, force=force)
        )
    assert str(caught.value).startswith(f"no precision passes: fp32 for target cpu: {FP32_FILES[0]}: ") or (
        str(caught.value).startswith("no precision passes: int8 for target cpu: model.")
    )
    assert contents(tmp_path) == before
    with pytest.raises(ParityError, match=r"^int8 vectors.* are too far from fp32"):  # asked for alone
        quick(checkpoint, output, precisions=("int8",), calibration=few, min_cosine=TOO_MUCH, force=force)
    assert contents(tmp_path) == before


def test_what_no_precision_can_be_made_of_is_refused_as_such_and_at_once(
    checkpoint: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def build(*_: Any) -> Any:
        calls.append(1)
        raise UnsupportedCheckpointError("a swing")

    monkeypatch.setattr(tasks, "build", build)
    with pytest.raises(UnsupportedCheckpointError, match=r"^a swing$"):
        quick(checkpoint, tmp_path / "out", precisions=BOTH, calibration=few)
    assert len(calls) == 1
    assert not (tmp_path / "out").exists()


def test_a_damaged_checkpoint_is_no_matter_of_precision(
    checkpoint: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise CheckpointError("torn")

    monkeypatch.setattr(making, "int8_graphs", broken)
    with pytest.raises(CheckpointError, match=r"^torn$"):
        quick(checkpoint, tmp_path / "out", precisions=BOTH, calibration=few)
    assert not (tmp_path / "out").exists()


def test_weights_that_half_precision_does_not_hold_leave_it_out(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source")
    name = "encoder.layer.0.output.dense.bias"
    change_tensors(source, lambda tensors: tensors[name].__setitem__(0, 1e5))
    made = quick(source, tmp_path / "out", targets=("cuda", "cpu"), precisions=("fp16", "bf16", "fp32"))
    described = assert_whole(tmp_path / "out")
    assert [(one.precision, one.target) for one in made.refused] == [("fp16", "cuda")]
    assert "float16 does not hold" in made.refused[0].why
    assert [(variant.target, variant.precision) for variant in described.variants] == [
        ("cuda-native", "bf16"),
        ("cuda", "bf16"),
        ("native", "bf16"),
        ("cuda", "fp32"),
        *[("native", "fp32") for _ in OWN_FP32],
        ("cpu", "fp32"),
        ("portable", "fp32"),
    ]


def test_a_target_that_cannot_be_made_of_a_checkpoint_is_left_out(tmp_path: Path, few: Path) -> None:
    source = save(tmp_path / "source", static(tmp_path / "static"))
    made = quick(source, tmp_path / "out", targets=("cuda", "cpu"), precisions=("fp32", "int8"), calibration=few)
    assert_whole(tmp_path / "out")
    assert [(one.precision, one.target) for one in made.refused] == [("fp32", "cuda")]
    with pytest.raises(UnsupportedCheckpointError, match="target cuda runs encoders with attention"):
        quick(source, tmp_path / "alone", targets=("cuda",), precisions=("fp16", "bf16"))


def test_what_does_not_run_here_has_not_passed(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all that was compared is out of bounds, graphs for another machine are not kept unseen."""
    beyond(monkeypatch, "fp32", "fp16")
    monkeypatch.setattr(report, "obstacle", lambda provider: "no GPU")
    options = ExportOptions(output=tmp_path / "out", targets=("cpu", "cuda"), precisions=("fp32", "fp16"))
    with pytest.raises(ParityError, match="are out of bounds"):
        export(str(checkpoint), options)
    assert not (tmp_path / "out").exists()


def test_without_the_reference_what_passed_so_far_is_kept(checkpoint: Path, tmp_path: Path, few: Path) -> None:
    quick(checkpoint, tmp_path / "out", precisions=BOTH, calibration=few, min_cosine=TOO_MUCH)
    assert assert_whole(tmp_path / "out").parity["status"] == "not verified"


# --- other tasks -----------------------------------------------------------------------------------------------------

TASKS: dict[str, tuple[Callable[..., Path], Any]] = {
    "reranking": (save_cross_encoder, Reranker),
    "sparse": (save_splade, SparseModel),
    "late_interaction": (save_multi_vector, LateInteractionModel),
}


@pytest.mark.parametrize("task", TASKS)
def test_every_task_leaves_out_what_is_too_far_from_its_reference(
    tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch, task: str
) -> None:
    make, opens = TASKS[task]
    source, output = make(tmp_path / "source"), tmp_path / "out"
    beyond(monkeypatch, "int8")
    options = ExportOptions(output=output, precisions=BOTH, calibration=few, min_cosine=0.5)
    made = export(str(source), options)
    assert [(one.precision, one.target) for one in made.refused] == [("int8", "cpu")]
    assert "are out of bounds" in made.refused[0].why
    assert assert_whole(output).parity["status"] == "passed"
    with pytest.raises(InvalidInputError, match="the export refused it"):
        opens(output, precision="int8")
    opens(output).close()


# --- routes ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asymmetric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Encoders of their own for queries and for documents, and what follows both."""
    folder = tmp_path_factory.mktemp("routes")
    document = [*transformer(folder / "bert"), dense(24)]
    query = [*transformer(folder / "distilbert", "distilbert"), dense(24, seed=1)]
    return save(folder / "checkpoint", router(query, document, default_route="document"), normalize())


@pytest.mark.parametrize("failing", [0, 1])
def test_a_precision_that_one_route_lacks_is_left_out_of_all(
    asymmetric: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    true, calls = calibrated.int8_graphs, []

    def int8(*args: Any) -> Any:
        calls.append(1)
        made = true(*args)  # its files are there
        if len(calls) == failing + 1:
            raise ParityError("this one is too far")
        return made

    monkeypatch.setattr(making, "int8_graphs", int8)
    options = ExportOptions(output=tmp_path / "out", precisions=BOTH, calibration=few, min_cosine=0.5, verify=False)
    made = export(str(asymmetric), options)
    assert made.refused == (
        Refused(precision="int8", target="cpu", why=("", "query texts: ")[failing] + "this one is too far"),
    )
    described = assert_whole(tmp_path / "out")
    assert list(described.routes) == ["query"]
    assert len(calls) == failing + 1  # what is refused already is not made again
    for role in (None, "query"):
        with pytest.raises(InvalidInputError, match="this one is too far"):
            EmbeddingModel(tmp_path / "out", route=role, precision="int8")
    with EmbeddingModel(tmp_path / "out") as model:
        assert model.encode_query(TEXTS).shape == model.encode_document(TEXTS).shape


def test_a_precision_that_is_too_far_on_one_route_is_left_out_of_all(
    asymmetric: Path, tmp_path: Path, few: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = report.of_variants

    def of_variants(described: Manifest, figures: Any, *args: Any) -> dict[str, Any]:
        def worse(variant: Variant, provider: str) -> Any:
            if variant.graph.file == "query/model.cpu.int8.onnx":
                raise ParityError("query/model.cpu.int8.onnx: 3 comparisons are out of bounds")
            return figures(variant, provider)

        return true(described, worse, *args)

    monkeypatch.setattr(report, "of_variants", of_variants)
    export(str(asymmetric), ExportOptions(output=tmp_path / "out", precisions=BOTH, calibration=few, min_cosine=0.5))
    described = assert_whole(tmp_path / "out")
    assert described.refused[0].why == "query/model.cpu.int8.onnx: 3 comparisons are out of bounds"
    assert set(described.parity["variants"]) == {
        variant.graph.file for encoder in (described, *described.routes.values()) for variant in encoder.variants
    }
    assert set(described.routes["query"].parity["variants"]) == {f"query/{file}" for file in FP32_FILES}


def test_routes_of_one_encoder_are_left_without_it_too(tmp_path: Path, few: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", max_seq_length=40, num_hidden_layers=1)
    file = source / "sentence_bert_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "query_length": 12}))
    made = quick(source, tmp_path / "out", precisions=BOTH, calibration=few, min_cosine=TOO_MUCH)
    assert list(made.routes) == ["query"]
    assert_whole(tmp_path / "out")


# --- files -----------------------------------------------------------------------------------------------------------


def test_shared_weights_stay_in_the_file_of_a_graph_that_was_refused(model: Path, tmp_path: Path) -> None:
    described = manifest.read(model)
    for name, body in contents(model).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(body)
    *own, cpu, portable = described.variants
    assert [record.file for record in cpu.weights] == [portable.graph.file] == ["model.onnx"]
    refusals = Refusals(lambda _: None)
    refusals.variant(replace(portable, target="cuda"), ParityError("far"))
    for variant in own:
        (tmp_path / variant.graph.file).unlink()
    variants = (cpu, replace(portable, target="cuda"))
    changed = replace(described, variants=variants, default_variant=cpu.graph.file)
    rest = left(tmp_path, changed, refusals)
    assert rest.variants == (cpu,)
    assert set(contents(tmp_path)) == set(contents(model)) - {variant.graph.file for variant in own}
    refusals.variant(cpu, ParityError("farther"))
    with pytest.raises(ParityError, match=r"no precision passes: fp32 for target cuda: far; fp32 for target cpu: far"):
        left(tmp_path, changed, refusals)


def test_the_bound_of_int8_is_what_it_was() -> None:
    assert parity.INT8_MIN_COSINE == 0.98
    assert ExportOptions().min_cosine == 0.98
