"""SPLADE checkpoints beside sentence-transformers' SparseEncoder on torch: every head, pooling and activation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from checkpoints import FP32_FILES, OWN_CODE, PROMPTS, TEXTS, change_json, change_tensors
from exports import quick
from packed_attention import evaluate
from safetensors.numpy import load_file, save_file
from sparse_encoders import save_masked_lm, save_splade
from tolerances import REORDERED, close

from fastembed_rt import EmbeddingModel, SparseModel, native
from fastembed_rt.cli import main
from fastembed_rt.errors import FastembedRtError, InvalidInputError, InvalidTypeError, ModelFormatError
from fastembed_rt.manifest import read
from fastembed_rt.run import batching
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt.vectors.sparse import SparseVector, similarity
from fastembed_rt_export import masked_lm
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tasks import sparse as sparse_task

pytestmark = pytest.mark.usefixtures("short_gate")


def reference(checkpoint: Path, texts: list[str] = TEXTS, **options: Any) -> Any:
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(checkpoint), device="cpu", local_files_only=True)
    return model.encode(texts, convert_to_sparse_tensor=False, **options).numpy()


def exported(checkpoint: Path, output: Path, **options: Any) -> Path:
    export(str(checkpoint), ExportOptions(output=output, verify=False, **options))
    return output


def dense(vectors: list[SparseVector]) -> Any:
    return np.stack([vector.to_dense() for vector in vectors])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_splade(
        tmp_path_factory.mktemp("sparse") / "splade",
        prompts={**PROMPTS, "document": ""},
        default_prompt_name="query",
        max_active_dims=20,
    )


@pytest.fixture(scope="module")
def directory(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(checkpoint, tmp_path_factory.mktemp("sparse") / "out", precisions=("fp32", "int8"))


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    with SparseModel(directory) as loaded:
        yield loaded


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("model_type", sorted({*masked_lm.HEADS} - {*OWN_CODE}))
def test_every_head_gives_the_reference_weights(model_type: str, target: str, tmp_path: Path) -> None:
    checkpoint = save_masked_lm(tmp_path / "checkpoint", model_type)
    # Some families number positions beyond what their tokenizers, without a limit here, would cut.
    change_json(checkpoint / "tokenizer_config.json", model_max_length=40)
    with SparseModel(exported(checkpoint, tmp_path / "out", task="sparse"), target=target) as model:
        found = dense(model.encode(TEXTS))
    close(found, reference(checkpoint))


def test_gte_has_the_head_that_its_code_on_the_hub_has(tmp_path: Path) -> None:
    """As opensearch-neural-sparse-encoding-doc-v3-gte is published: another model_type, and other names of tensors."""
    source = save_masked_lm(tmp_path / "source", "gte")
    wanted = reference(source)
    tensors = load_file(source / "model.safetensors")
    renamed = {
        name.replace("gte.", "new.", 1).replace("lm_head.layer_norm.", "lm_head.norm."): value
        for name, value in tensors.items()
    }
    assert {"lm_head.norm.weight", "new.embeddings.word_embeddings.weight"} <= {*renamed}
    save_file(renamed, source / "model.safetensors", metadata={"format": "pt"})
    change_json(source / "config.json", model_type="new", architectures=["NewForMaskedLM"])
    with SparseModel(exported(source, tmp_path / "out", task="sparse")) as model:
        close(dense(model.encode(TEXTS)), wanted)


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.parametrize("strategy", ["max", "sum"])
def test_poolings_and_activations(
    strategy: str, activation: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm, "PIECE", 128)  # a vocabulary of 300 in three pieces
    checkpoint = save_splade(tmp_path / "checkpoint", strategy=strategy, activation=activation)
    with SparseModel(exported(checkpoint, tmp_path / "out"), target=target) as model:
        close(dense(model.encode(TEXTS)), reference(checkpoint))


def test_int8_of_a_vocabulary_in_pieces_is_that_of_the_whole(
    checkpoint: Path, directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(masked_lm, "PIECE", 128)
    pieces = exported(checkpoint, tmp_path / "out", precisions=("int8",))
    with SparseModel(pieces) as one, SparseModel(directory, precision="int8") as other:
        found, wanted = (dense(model.encode(TEXTS, max_active_dims=300)) for model in (one, other))
    np.testing.assert_allclose(found, wanted, atol=0.02)  # each piece's inputs have the range that suits it best
    assert read(pieces).default.notes["fidelity"]["min_cosine"] > 0.98


@pytest.mark.skipif(native.kernels() is None, reason="no graph for target native is written")
def test_inputs_of_the_vocabularys_head_may_lie_beyond_their_range(directory: Path) -> None:
    nodes = onnx.load(directory / "model.native.int8.onnx", load_external_data=False).graph.node
    heads = [{attribute.name for attribute in node.attribute} for node in nodes if node.op_type == "QuantLinear"]
    assert len(heads) >= 2, "the transform and the vocabulary"
    assert all("linear_tails" in attributes for attributes in heads)


def test_a_decoder_of_its_own_is_taken(tmp_path: Path) -> None:
    checkpoint = save_masked_lm(tmp_path / "checkpoint", tie_word_embeddings=False)
    with SparseModel(exported(checkpoint, tmp_path / "out", task="sparse")) as model:
        close(dense(model.encode(TEXTS)), reference(checkpoint))


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_a_bias_of_which_transformers_makes_zeros_is_refused(model_type: str, tmp_path: Path) -> None:
    """As version 4 saved heads that are not tied: the bias under the name that only those have which are."""
    checkpoint = save_masked_lm(tmp_path / "checkpoint", model_type, tie_word_embeddings=False)
    name = {"bert": "cls.predictions.decoder.bias", "roberta": "lm_head.decoder.bias"}[model_type]
    whole = reference(checkpoint, TEXTS[:5])
    change_tensors(checkpoint, lambda tensors: tensors.update({name.replace("decoder.", ""): tensors.pop(name)}))
    assert np.abs(reference(checkpoint, TEXTS[:5]) - whole).max() > 1e-3
    with pytest.raises(CheckpointError, match=f"missing: {name}"):
        exported(checkpoint, tmp_path / "out", task="sparse")


def test_old_checkpoints_with_an_mlm_transformer_module(tmp_path: Path) -> None:
    checkpoint = save_splade(tmp_path / "checkpoint")
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[0]["type"] = "sentence_transformers.sparse_encoder.models.MLMTransformer"
    modules[1]["type"] = "sentence_transformers.sparse_encoder.models.SpladePooling"
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    (checkpoint / "sentence_bert_config.json").write_text('{"max_seq_length": 9, "do_lower_case": false}')
    with SparseModel(exported(checkpoint, tmp_path / "out")) as model:
        assert model.max_length == 9
        close(dense(model.encode(TEXTS)), reference(checkpoint))


def test_prompts_and_roles_are_those_of_the_checkpoint(model: SparseModel, checkpoint: Path) -> None:
    every = model.dim
    for ours, prompt in (
        (model.encode(TEXTS, max_active_dims=every), PROMPTS["query"]),  # the default one
        (model.encode_query(TEXTS, max_active_dims=every), PROMPTS["query"]),
        (model.encode_document(TEXTS, max_active_dims=every), ""),
        (model.encode(TEXTS, prompt_name="passage", max_active_dims=every), PROMPTS["passage"]),
    ):
        wanted = reference(checkpoint, prompt=prompt, max_active_dims=every)
        close(dense(ours), wanted)


def test_the_heaviest_words_are_kept(model: SparseModel, checkpoint: Path) -> None:
    assert model.max_active_dims == 20  # of config_sentence_transformers.json
    assert {len(vector) for vector in model.encode(TEXTS)} == {20}
    close(dense(model.encode(TEXTS)), reference(checkpoint))
    few = model.encode(TEXTS, max_active_dims=5)
    close(dense(few), reference(checkpoint, max_active_dims=5))
    assert all((np.diff(vector.indices) > 0).all() for vector in few)


def test_words_are_decoded_as_the_reference_decodes_them(model: SparseModel, checkpoint: Path) -> None:
    from sentence_transformers import SparseEncoder

    theirs = SparseEncoder(str(checkpoint), device="cpu", local_files_only=True)
    known = "the cat runs"
    wanted = theirs.decode(theirs.encode([known], max_active_dims=50), top_k=8)[0]
    found = model.decode(model.encode([known], max_active_dims=50), top_k=8)[0]
    vocabulary = [(word, weight) for word, weight in wanted if word is not None]  # rows of the table without a word
    ours = [(word, weight) for word, weight in found if not word.startswith("<")]
    assert [word for word, _ in ours] == [word for word, _ in vocabulary]
    np.testing.assert_allclose([w for _, w in ours], [w for _, w in vocabulary], rtol=1e-5)
    assert model.decode(model.encode(known), top_k=8)[0] == found[0]


@pytest.mark.parametrize("function", ["dot", "cosine", "euclidean", "manhattan"])
def test_similarities_are_those_of_dense_vectors(function: str, model: SparseModel) -> None:
    from sentence_transformers.util import SimilarityFunction

    vectors = [*model.encode(TEXTS), SparseVector.zero(model.dim)]
    whole = torch.from_numpy(dense(vectors))
    wanted = SimilarityFunction.to_similarity_fn(function)(whole, whole[:3]).numpy()
    np.testing.assert_allclose(similarity(function, vectors, vectors[:3]), wanted, rtol=1e-4, atol=1e-3)
    assert similarity(function, vectors[0], []).shape == (1, 0)


def test_neighbours_do_not_change_a_vector(directory: Path) -> None:
    for precision in ("fp32", "int8"):
        with SparseModel(directory, precision=precision) as model:
            together = model.encode(TEXTS * 40)
            for k, text in enumerate(TEXTS):
                alone = model.encode(text)
                np.testing.assert_array_equal(alone.indices, together[k].indices)
                close(alone.values, together[k].values, REORDERED)


def test_streams_and_asyncio_give_the_same(model: SparseModel) -> None:
    wanted = dense(model.encode(TEXTS))
    close(dense(list(model.embed(iter(TEXTS)))), wanted, REORDERED)
    close(dense(asyncio.run(model.aencode(TEXTS))), wanted, REORDERED)
    close(dense(asyncio.run(model.aencode_query(TEXTS))), dense(model.encode_query(TEXTS)), REORDERED)
    close(dense(asyncio.run(model.aencode_document(TEXTS))), dense(model.encode_document(TEXTS)), REORDERED)
    assert model.encode([]) == []


def test_the_batch_shrinks_with_the_vocabulary(model: SparseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    assert model.max_batch_tokens == 512
    monkeypatch.setattr("fastembed_rt.models.sparse.MOST_WEIGHTS", 300 * 100)
    with SparseModel(model.path) as other:
        assert other.max_batch_tokens == 100
        close(dense(other.encode(TEXTS)), dense(model.encode(TEXTS)), REORDERED)


def test_the_gate_passes_and_reports_every_variant(checkpoint: Path, tmp_path: Path) -> None:
    made = export(
        str(checkpoint), ExportOptions(output=tmp_path / "out", precisions=("fp32", "int8"), force=True)
    ).manifest
    assert made.parity["status"] == "passed"
    own = {"model.native.int8.onnx"} if native.kernels() else set()
    assert set(made.parity["variants"]) == {*FP32_FILES, "model.cpu.int8.onnx"} | own
    assert made.parity["variants"]["model.onnx"]["max_abs_diff"] < 1e-5
    assert made.parity["variants"]["model.cpu.int8.onnx"]["min_cosine"] > 0.98
    assert (made.task, made.dim, made.similarity) == ("sparse", 300, "dot")
    assert "SparseModel" in (tmp_path / "out" / "README.md").read_text()


def test_the_gate_refuses_another_activation(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sparse_task.ACTIVATIONS, "relu", 2)
    with pytest.raises(ParityError, match="out of bounds"):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_another_class_says_which_one_opens_the_directory(directory: Path) -> None:
    with pytest.raises(FastembedRtError, match=r"sparse; open it with fastembed_rt\.SparseModel, not EmbeddingModel"):
        EmbeddingModel(directory)


def test_options_that_cannot_be_are_refused(directory: Path, model: SparseModel) -> None:
    with pytest.raises(InvalidInputError, match="truncation 'chunk' is not for sparse"):
        SparseModel(directory, truncation="chunk")
    with pytest.raises(InvalidInputError, match="max_active_dims 301 is not possible; expected 1 to 300"):
        model.encode("a", max_active_dims=301)
    with pytest.raises(InvalidTypeError, match="text 1 is int"):
        model.encode(["a", 1])  # type: ignore[list-item]
    with pytest.raises(InvalidInputError, match=r"\[2, 300\] dimensions"):
        model.similarity(model.encode("a"), SparseVector.zero(2))
    with pytest.raises(InvalidTypeError, match="ndarray is not a SparseVector"):
        model.similarity(model.encode("a"), [np.zeros(300)])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("1_SpladePooling/config.json", {"pooling_strategy": "mean"}, "pooling_strategy 'mean'; built are max, sum"),
        ("1_SpladePooling/config.json", {"activation_function": "gelu"}, "activation_function 'gelu'"),
        ("sentence_bert_config.json", {"transformer_task": "feature-extraction"}, "built behind 'fill-mask' only"),
        ("config_sentence_transformers.json", {"max_active_dims": 0}, "max_active_dims 0"),
        ("config_sentence_transformers.json", {"similarity_fn_name": 5}, "similarity_fn_name 5"),
        ("sentence_bert_config.json", {"query_length": 7}, "'query' at 7 tokens and others elsewhere"),
    ],
)
def test_what_is_not_built_is_refused(file: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = save_splade(tmp_path / "checkpoint")
    change_json(checkpoint / file, **changes)
    with pytest.raises((UnsupportedCheckpointError, CheckpointError), match=message):
        exported(checkpoint, tmp_path / "out")


def test_other_modules_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = save_splade(tmp_path / "checkpoint")
    modules = json.loads((checkpoint / "modules.json").read_text())
    kind = "sentence_transformers.sparse_encoder.modules.SparseAutoEncoder"
    modules.append({"idx": 2, "name": "2", "path": "", "type": kind})
    (checkpoint / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(UnsupportedCheckpointError, match="SpladePooling, SparseAutoEncoder; built are"):
        exported(checkpoint, tmp_path / "out")


def test_a_missing_or_misshapen_head_is_reported(tmp_path: Path) -> None:
    checkpoint = save_masked_lm(tmp_path / "checkpoint")
    change_tensors(checkpoint, lambda tensors: tensors.pop("cls.predictions.transform.dense.weight"))
    with pytest.raises(CheckpointError, match=r"missing: cls\.predictions\.transform\.dense\.weight"):
        exported(checkpoint, tmp_path / "out", task="sparse")
    checkpoint = save_masked_lm(tmp_path / "other")
    change_tensors(checkpoint, lambda tensors: tensors.update({"cls.predictions.bias": np.zeros(7, np.float32)}))
    with pytest.raises(CheckpointError, match=r"misshapen: cls\.predictions\.bias is F32 \(7,\)"):
        exported(checkpoint, tmp_path / "out", task="sparse")
    change_json(checkpoint / "config.json", architectures=["BertModel"])
    with pytest.raises(CheckpointError, match=r"architectures \['BertModel'\], no \.\.\.ForMaskedLM"):
        exported(checkpoint, tmp_path / "out", task="sparse")


def test_the_manifest_and_its_task_fit_together(directory: Path, tmp_path: Path) -> None:
    from fastembed_rt.manifest import parse

    body = json.loads(read(directory).to_json())
    with pytest.raises(ModelFormatError, match="max_active_dims 0"):
        parse(json.dumps({**body, "sparse": {"max_active_dims": 0}}))
    with pytest.raises(ModelFormatError, match="'sparse' and the facts"):
        parse(json.dumps({**body, "sparse": None}))


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint, output = save_masked_lm(tmp_path / "checkpoint"), tmp_path / "out"
    assert main(["export", str(checkpoint), "-o", str(output), "--task", "sparse", "--pooling", "cls"]) == 2
    assert "--pooling is not for sparse" in capsys.readouterr().err
    assert main(["export", str(checkpoint), "-o", str(output), "--task", "sparse"]) == 0
    assert "SpladePooling(max, relu)" in capsys.readouterr().out
    assert main(["info", str(output)]) == 0
    assert "sparse, opened by fastembed_rt.SparseModel" in capsys.readouterr().out
    assert main(["verify", str(output), "--against", str(checkpoint)]) == 0
    assert "parity: passed" in capsys.readouterr().out
    assert main(["embed", str(output), "-o", str(tmp_path / "vectors.npy"), str(checkpoint / "config.json")]) != 0


@pytest.mark.parametrize("strategy", ["max", "sum"])
@pytest.mark.parametrize("target", ["cuda", "tensorrt"])
def test_graphs_for_gpus_in_half_precision(
    target: str, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a vocabulary in pieces; numpy stands in for the attention that the CPU has not."""
    monkeypatch.setattr(masked_lm, "PIECE", 40)
    source = save_splade(tmp_path / "splade", strategy=strategy)
    made = exported(source, tmp_path / "made", targets=(target,), precisions=("fp16",))
    described = read(made)
    tokenizer = TextTokenizer(made / "tokenizer.json", max_length=described.max_length)
    assert [variant.target for variant in described.variants] == (["cuda-native"] if target == "cuda" else []) + [
        target
    ]
    for variant in described.variants:
        feeds = batching.feeds(tokenizer(TEXTS).ids, variant.inputs, 0, np.zeros(len(TEXTS), np.int64))
        if target == "cuda":
            found = evaluate(made / variant.graph.file, feeds)
        else:
            session = onnxruntime.InferenceSession(str(made / variant.graph.file), providers=["CPUExecutionProvider"])
            (found,) = session.run(None, feeds)
        assert found.dtype == np.float32
        cosine, _ = distances(found, reference(source))
        assert cosine.min() >= 0.9995


def test_a_similarity_of_token_vectors_is_passed_over_as_in_the_reference(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    checkpoint = save_splade(tmp_path / "checkpoint")
    change_json(checkpoint / "config_sentence_transformers.json", similarity_fn_name="maxsim")
    assert SparseEncoder(str(checkpoint), device="cpu").similarity_fn_name == "dot"
    described = quick(checkpoint, tmp_path / "out")
    assert described.similarity == "dot"
    assert any("similarity_fn_name 'maxsim' is none of dot" in note for note in described.notes)


@pytest.mark.parametrize("said", [None, {}], ids=["no file", "nothing in it"])
def test_a_transformer_that_is_not_said_to_have_a_head_has_none(said: Any, tmp_path: Path) -> None:
    """The reference pools its token states then, and calls them weights of words."""
    checkpoint = save_splade(tmp_path / "splade")
    (checkpoint / "sentence_bert_config.json").unlink()
    if said is not None:
        (checkpoint / "sentence_bert_config.json").write_text(json.dumps(said), encoding="utf-8")
    assert reference(checkpoint).shape[1] == 24
    with pytest.raises(UnsupportedCheckpointError, match="has transformer_task 'feature-extraction'"):
        quick(checkpoint, tmp_path / "out")


def test_alberts_head_has_alberts_activation_where_none_is_said(tmp_path: Path) -> None:
    checkpoint = save_masked_lm(tmp_path / "plain", "albert")
    change_json(checkpoint / "config.json", "hidden_act")
    with SparseModel(exported(checkpoint, tmp_path / "out", task="sparse")) as model:
        close(dense(model.encode(TEXTS, max_active_dims=model.dim)), reference(checkpoint))


def test_a_vocabulary_whose_size_is_not_said_is_refused(tmp_path: Path) -> None:
    checkpoint = save_masked_lm(tmp_path / "plain")
    change_json(checkpoint / "config.json", "vocab_size")
    with pytest.raises(CheckpointError, match=r"config\.json lacks 'vocab_size'"):
        quick(checkpoint, tmp_path / "out", task="sparse")


@pytest.mark.parametrize("model_type", sorted({*masked_lm.HEADS} - {*OWN_CODE}))
def test_a_head_has_the_encoders_activation_where_the_reference_says_so(model_type: str, tmp_path: Path) -> None:
    key = {"distilbert": "activation", "modernbert": "hidden_activation"}.get(model_type, "hidden_act")
    checkpoint = save_masked_lm(tmp_path / "plain", model_type, **{key: "tanh"})
    with SparseModel(exported(checkpoint, tmp_path / "out", task="sparse")) as model:
        texts = TEXTS[:-1]  # RoBERTa has no positions for the last one, where it is not cut
        close(dense(model.encode(texts, max_active_dims=model.dim)), reference(checkpoint, texts))
