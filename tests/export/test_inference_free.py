"""Sparse encoders whose queries are a lookup, beside sentence-transformers' SparseEncoder on torch."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from checkpoints import FP32_FILES, TEXTS, write_json
from exports import quick
from inference_free import LIMIT, WORDS, save_inference_free
from safetensors.numpy import load_file
from tolerances import close

from fastembed_rt import SparseModel
from fastembed_rt.errors import FastembedRtError
from fastembed_rt.manifest import read
from fastembed_rt_export import tasks
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

NASTY = [*TEXTS, "cat cat CAT the cat", "[CLS] a [SEP] [MASK]", "the [PAD] dog", "\n\t ", "\x00", "東京" * 30]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_inference_free(tmp_path_factory.mktemp("free") / "model")


@pytest.fixture(scope="module")
def exported(checkpoint: Path) -> Path:
    out = checkpoint.with_name("onnx")
    quick(checkpoint, out)
    return out


def wanted(checkpoint: Path, call: str, texts: list[str] = NASTY) -> Any:
    """Of each text alone: in a batch, padding there takes a written [PAD] out of a text."""
    from sentence_transformers import SparseEncoder

    model = SparseEncoder(str(checkpoint), device="cpu", local_files_only=True)
    options: dict[str, Any] = {"convert_to_sparse_tensor": False, "batch_size": 1}
    return getattr(model, call)(texts, **options).numpy()


def dense(vectors: Any) -> Any:
    return np.stack([vector.to_dense() for vector in vectors])


@pytest.mark.parametrize("call", ["encode", "encode_query", "encode_document"])
def test_vectors_are_those_of_sentence_transformers(checkpoint: Path, exported: Path, call: str) -> None:
    with SparseModel(exported) as model:
        close(dense(getattr(model, call)(NASTY)), wanted(checkpoint, call))


@pytest.mark.parametrize("activation", ["relu", "log1p_relu"])
@pytest.mark.usefixtures("short_gate")
def test_the_gate_passes(tmp_path: Path, activation: str) -> None:
    made = export(str(save_inference_free(tmp_path / "m", activation)), ExportOptions(output=tmp_path / "onnx"))
    report = made.manifest.parity
    assert report["status"] == "passed"
    assert set(report["variants"]) == {*FP32_FILES, "query/model.onnx"}
    assert set(made.manifest.routes["query"].parity["variants"]) == {"query/model.onnx"}
    assert {call: entry["compared"] > 0 for call, entry in report["calls"].items()} == dict.fromkeys(
        ("encode", "encode_document", "encode_query"), True
    )


def test_a_weight_counts_once_by_hand(checkpoint: Path, exported: Path) -> None:
    weights = load_file(checkpoint / "query_0_SparseStaticEmbedding/model.safetensors")["weight"]
    vocabulary = json.loads((checkpoint / "query_0_SparseStaticEmbedding/tokenizer.json").read_text())["model"]["vocab"]
    with SparseModel(exported) as model:
        found = model.encode_query("The dog, the dog [SEP]")
        assert len(model.encode_query("")) == 0
    ids = sorted({vocabulary[word] for word in ("the", "dog", ",", "[SEP]")})
    kept = [number for number in ids if weights[number] != 0]
    assert found.indices.tolist() == kept
    np.testing.assert_array_equal(found.values, weights[kept])


def test_the_graph_in_plain_onnxruntime(checkpoint: Path, exported: Path) -> None:
    """Padding counts for nothing, a token that is there twice for one."""
    session = onnxruntime.InferenceSession(exported / "query/model.onnx")
    weights = load_file(checkpoint / "query_0_SparseStaticEmbedding/model.safetensors")["weight"]
    ids = np.array([[7, 9, 7, 0], [5, 0, 0, 0]])
    feeds = {"input_ids": ids, "attention_mask": np.array([[1, 1, 1, 0], [1, 1, 0, 0]])}
    (found,) = session.run(["sentence_embedding"], feeds)
    expected = np.zeros((2, WORDS), np.float32)
    expected[0, [7, 9]], expected[1, [5, 0]] = weights[[7, 9]], weights[[5, 0]]
    np.testing.assert_array_equal(found, expected)


def test_the_table_is_small_and_says_what_it_is(exported: Path) -> None:
    manifest = read(exported)
    query = manifest.routes["query"]
    assert manifest.sparse is not None
    assert query.sparse is not None
    assert (manifest.route, query.route) == ("document", "query")
    assert (manifest.sparse.table, query.sparse.table) == (False, True)
    assert query.max_length == LIMIT
    assert query.modules == (f"SparseStaticEmbedding({WORDS} tokens)",)
    assert query.default.graph.size < 4 * WORDS + 1500


def test_one_table_serves_every_precision(tmp_path: Path, checkpoint: Path) -> None:
    quick(checkpoint, tmp_path / "onnx", precisions=("int8", "fp32"), min_cosine=0.5)
    expected = wanted(checkpoint, "encode_query")
    for precision in ("int8", "fp32"):
        with SparseModel(tmp_path / "onnx", precision=precision) as model:
            close(dense(model.encode_query(NASTY)), expected)
            assert model.precision == precision


def test_settings_hold_for_both_and_models_travel(exported: Path) -> None:
    with SparseModel(exported) as model:
        model.encode_query("a cat")
        model.max_active_dims = 1
        assert len(model.encode_query("the cat sleeps under a tree")) == 1
        other = pickle.loads(pickle.dumps(model))
        assert len(other.encode_query("the cat sleeps under a tree")) == 1
        other.close()
    with SparseModel(exported, route="query") as alone:
        assert alone.encode("a dog").as_dict() == alone.encode_query("a dog").as_dict() != {}
        assert alone.stats.texts == 2


def test_weights_by_name_in_a_file(tmp_path: Path, checkpoint: Path) -> None:
    """As SparseStaticEmbedding.from_json reads them: what the vocabulary lacks is the unknown token's."""
    from transformers import AutoTokenizer

    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    folder = copy / "query_0_SparseStaticEmbedding"
    (folder / "model.safetensors").unlink()
    (folder / "idf.json").write_text(json.dumps({"cat": 2.5, "dog": 1, "never-heard-of": 0.25, ".": 4}))
    write_json(folder / "config.json", {"frozen": False, "path": str(folder / "idf.json")})
    quick(copy, tmp_path / "onnx")
    with SparseModel(tmp_path / "onnx") as model:
        close(dense(model.encode_query(NASTY)), wanted(copy, "encode_query"))
    assert AutoTokenizer.from_pretrained(folder).unk_token == "[UNK]"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}", "tokenizer.json cannot be read by tokenizers"),
        (
            '{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "cat": 7}, "unk_token": "a"}}',
            "up to 7",
        ),
    ],
)
def test_weights_by_token_of_a_tokenizer_that_cannot_place_them_are_refused(
    tmp_path: Path, checkpoint: Path, content: str, said: str
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (folder,) = copy.glob("*_SparseStaticEmbedding")
    (folder / "model.safetensors").unlink()
    write_json(folder / "idf.json", {"cat": 2.5})
    write_json(folder / "config.json", {"frozen": False, "path": str(folder / "idf.json")})
    (folder / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=said):
        export(str(copy), ExportOptions(output=tmp_path / "out", verify=False))


@pytest.mark.parametrize(
    ("weight", "tokenizer", "words"),
    [
        (float("nan"), True, "weight weight in {}/idf.json is NaN or infinite in 1 of its "),
        (1, False, "{} lacks the checkpoint's vocabulary: there is no tokenizer.json"),
    ],
)
def test_weights_by_token_that_are_not_finite_or_have_no_tokens_are_refused(
    tmp_path: Path, checkpoint: Path, weight: float, tokenizer: bool, words: str
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    folder = copy / "query_0_SparseStaticEmbedding"
    (folder / "model.safetensors").unlink()
    (folder / "idf.json").write_text(json.dumps({"cat": weight}))
    write_json(folder / "config.json", {"frozen": False, "path": str(folder / "idf.json")})
    if not tokenizer:
        (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=words.format(folder)):
        quick(copy, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"path": "somebody/idf.json"}, UnsupportedCheckpointError, ["'somebody/idf.json'", "save the model again"]),
        ({"idf_scale": 2}, CheckpointError, ["'idf_scale'"]),
    ],
)
def test_what_is_not_there_or_not_known(
    tmp_path: Path, checkpoint: Path, change: dict[str, Any], kind: type[FastembedRtError], words: list[str]
) -> None:
    copy = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    write_json(copy / "query_0_SparseStaticEmbedding/config.json", change)
    with pytest.raises(kind) as caught:
        tasks.load(copy, "copy")
    assert [word for word in words if word not in str(caught.value)] == []
