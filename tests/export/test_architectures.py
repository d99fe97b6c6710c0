"""Every architecture with random weights beside transformers on torch, at 1e-5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from checkpoints import CONFIGS, random_model, save_tokenizer, save_transformers
from st_modules import Pooling
from tolerances import close
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.architectures.mpnet import relative_bucket
from fastembed_rt_export.checkpoint import read as checkpoints
from fastembed_rt_export.checkpoint.read import POOLING_MODES, Checkpoint, Overrides
from fastembed_rt_export.graph.portable import MAX_OPSET, MIN_OPSET, PORTABLE
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.tasks.embedding import build

Ids = npt.NDArray[np.int64]


def batch(seed: int = 0, pad: int = 1, longest: int = 20) -> tuple[Ids, Ids]:
    """Rows of unequal length, padded on the right with the model's pad id."""
    random = np.random.default_rng(seed)
    lengths = np.array([longest, 1, 7, 2, longest - 1])
    mask = (np.arange(longest) < lengths[:, None]).astype(np.int64)
    return np.where(mask == 1, random.integers(5, 100, mask.shape), pad), mask


def exported(directory: Path, checkpoint: Checkpoint, opset: int = MIN_OPSET) -> onnxruntime.InferenceSession:
    graph = build(checkpoint, PORTABLE, opset).graph
    write(graph, directory, f"{opset}.onnx", name="test", metadata={})
    onnx.checker.check_model(str(directory / f"{opset}.onnx"), full_check=True)
    return onnxruntime.InferenceSession(str(directory / f"{opset}.onnx"))


def run(session: onnxruntime.InferenceSession, ids: Ids, mask: Ids) -> npt.NDArray[np.float32]:
    (vectors,) = session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
    result: npt.NDArray[np.float32] = vectors
    return result


def expected(model: Any, pooling: tuple[str, ...], ids: Ids, mask: Ids) -> npt.NDArray[np.float32]:
    """transformers' states through sentence-transformers' pooling."""
    with torch.no_grad():
        tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
        states = model(**tensors).last_hidden_state
        pool = Pooling(states.shape[-1], pooling_mode=pooling)
        features = pool({"token_embeddings": states, "attention_mask": tensors["attention_mask"]})
        result: npt.NDArray[np.float32] = features["sentence_embedding"].numpy()
        return result


def pad_of(model_type: str) -> int:
    return int(random_model(model_type).config.pad_token_id)


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
@pytest.mark.parametrize("pooling", [*POOLING_MODES, "cls+mean+max"])
def test_random_weights_give_the_vectors_of_transformers(tmp_path: Path, model_type: str, pooling: str) -> None:
    modes = tuple(pooling.split("+"))
    checkpoint = checkpoints.load(save_transformers(tmp_path / model_type, model_type), model_type)
    checkpoint = checkpoints.override(checkpoint, Overrides(pooling=modes))
    ids, mask = batch(pad=pad_of(model_type))
    vectors = run(exported(tmp_path, checkpoint), ids, mask)
    close(vectors, expected(random_model(model_type), modes, ids, mask))


def test_every_architecture_in_the_table_has_a_random_checkpoint() -> None:
    assert set(CONFIGS) == set(ARCHITECTURES)


@pytest.mark.parametrize("opset", range(MIN_OPSET, MAX_OPSET + 1))
@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_every_opset_gives_the_same_vectors(tmp_path: Path, model_type: str, opset: int) -> None:
    checkpoint = checkpoints.load(save_transformers(tmp_path / model_type, model_type), model_type)
    modes = ("mean", "max", "cls")
    checkpoint = checkpoints.override(checkpoint, Overrides(pooling=modes))
    ids, mask = batch(pad=pad_of(model_type))
    vectors = run(exported(tmp_path, checkpoint, opset), ids, mask)
    close(vectors, expected(random_model(model_type), modes, ids, mask))


@pytest.mark.parametrize("model_type", ["roberta", "mpnet", "bert"])
def test_a_pad_token_inside_a_text_is_numbered_as_transformers_does(tmp_path: Path, model_type: str) -> None:
    checkpoint = checkpoints.load(save_transformers(tmp_path / model_type, model_type), model_type)
    ids, mask = batch(pad=pad_of(model_type))
    ids[0, 3:5] = pad_of(model_type)
    vectors = run(exported(tmp_path, checkpoint), ids, mask)
    wanted = expected(random_model(model_type), ("mean",), ids, mask)
    close(vectors, wanted)


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_a_text_of_all_positions_runs_and_one_more_does_not(tmp_path: Path, model_type: str) -> None:
    checkpoint = checkpoints.load(save_transformers(tmp_path / model_type, model_type), model_type)
    limit = checkpoint.architecture.positions(checkpoint.config)
    assert checkpoint.max_length == limit
    session = exported(tmp_path, checkpoint)
    ids, mask = batch(pad=pad_of(model_type), longest=limit)
    wanted = expected(random_model(model_type), ("mean",), ids, mask)
    close(run(session, ids, mask), wanted)
    with pytest.raises(Exception, match=r"(?i)shape|indices|dimension|broadcast"):
        run(session, *batch(pad=pad_of(model_type), longest=limit + 1))


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu", "silu", "tanh"])
@pytest.mark.parametrize("opset", [MIN_OPSET, MAX_OPSET])
def test_activations_are_those_of_transformers(tmp_path: Path, activation: str, opset: int) -> None:
    directory = save_transformers(tmp_path / "bert", hidden_act=activation)
    ids, mask = batch(pad=0)
    vectors = run(exported(tmp_path, checkpoints.load(directory, "bert"), opset), ids, mask)
    wanted = expected(random_model("bert", hidden_act=activation), ("mean",), ids, mask)
    close(vectors, wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_checkpoints_are_read_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_model("bert").to(dtype)
    model.save_pretrained(tmp_path / "half")
    save_tokenizer(tmp_path / "half", "bert")
    ids, mask = batch(pad=0)
    vectors = run(exported(tmp_path, checkpoints.load(tmp_path / "half", "half")), ids, mask)
    close(vectors, expected(model.float(), ("mean",), ids, mask))


@pytest.mark.parametrize("shard", ["10KB", "100GB"])
@pytest.mark.parametrize("task", ["BertForMaskedLM", "BertForPreTraining"])
def test_task_models_and_shards_give_the_encoder_inside(tmp_path: Path, shard: str, task: str) -> None:
    import transformers

    model = random_model("bert")
    whole = getattr(transformers, task)(model.config).eval()
    state = {key: value for key, value in model.state_dict().items() if not key.startswith("pooler.")}
    whole.bert.load_state_dict(state, strict=False)
    whole.save_pretrained(tmp_path / "task", max_shard_size=shard)
    save_tokenizer(tmp_path / "task", "bert")
    if shard == "10KB":
        assert len(list((tmp_path / "task").glob("*.safetensors"))) > 1
    ids, mask = batch(pad=0)
    vectors = run(exported(tmp_path, checkpoints.load(tmp_path / "task", "task")), ids, mask)
    close(vectors, expected(model, ("mean",), ids, mask))


def test_pickled_weights_give_the_same_vectors(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "bert")
    (directory / "model.safetensors").unlink()
    torch.save(random_model("bert").state_dict(), directory / "pytorch_model.bin")
    ids, mask = batch(pad=0)
    vectors = run(exported(tmp_path, checkpoints.load(directory, "bert")), ids, mask)
    close(vectors, expected(random_model("bert"), ("mean",), ids, mask))


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (8, 20), (64, 300)])
def test_relative_buckets_are_those_of_transformers(buckets: int, furthest: int) -> None:
    distance = np.arange(-600, 601)
    wanted = MPNetEncoder.relative_position_bucket(torch.tensor(distance), buckets, furthest).numpy()
    np.testing.assert_array_equal(relative_bucket(distance, buckets, furthest), wanted)


def test_only_standard_operators_are_used(tmp_path: Path) -> None:
    for model_type in ARCHITECTURES:
        checkpoint = checkpoints.load(save_transformers(tmp_path / model_type, model_type), model_type)
        graph = build(checkpoint, PORTABLE, MIN_OPSET).graph
        assert {node.domain for node in graph.nodes} == {""}
