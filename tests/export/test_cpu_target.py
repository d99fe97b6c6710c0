"""What the cpu target does otherwise than the portable one, and that it changes nothing but the time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from checkpoints import TEXTS, assert_vectors_agree, change_tensors, reference_vectors, save_sentence_transformers

from fastembed_rt import EmbeddingModel
from fastembed_rt.run import batching
from fastembed_rt_export.graph import cpu
from fastembed_rt_export.pipeline import ExportOptions, export

CPU_FILE = "model.cpu.fp32.onnx"


def test_a_masked_place_weighs_nothing_and_is_no_subnormal_number() -> None:
    share = np.exp(np.float32(cpu.MASKED))
    assert 512 * share < np.finfo(np.float32).eps ** 2  # a whole row of them does not reach the sum
    # A copy of a real token's score, up to 37 below the row's largest.
    assert np.exp(np.float32(cpu.MASKED - 37.0)) > np.finfo(np.float32).tiny


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("model_type", ["t5", "mpnet", "deberta", "deberta-v2"])
def test_places_without_a_token_weigh_nothing_however_much_distances_add(
    tmp_path: Path, model_type: str, pooling: str
) -> None:
    """They hold a copy of the text's last token, and lie where distances may add more than at that token itself."""
    source = save_sentence_transformers(tmp_path / "c", model_type, pooling=pooling)
    larger, times = ("relative_attention_bias", 200) if model_type in ("t5", "mpnet") else ("attention.self", 40)
    change_tensors(
        source, lambda tensors: tensors.update({name: tensors[name] * times for name in tensors if larger in name})
    )
    texts = [text for text in TEXTS if len(text) < 100]  # T5's limit here is none of the reference's
    wanted = reference_vectors(source, texts)
    export(str(source), ExportOptions(output=tmp_path / "out", verify=False))
    with EmbeddingModel(tmp_path / "out", target="cpu") as model:
        np.testing.assert_allclose(model.encode(texts), wanted, rtol=0, atol=1e-5)
        alone = np.stack([model.encode(text) for text in texts])
    np.testing.assert_allclose(alone, wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_the_first_token_alone_goes_through_the_last_layer(tmp_path: Path, model_type: str) -> None:
    whole, first = (
        save_sentence_transformers(tmp_path / pooling, model_type, pooling=pooling) for pooling in ("max", "cls")
    )
    assert_vectors_agree(first, tmp_path / "first")
    export(str(whole), ExportOptions(output=tmp_path / "whole", verify=False))
    texts = [np.array([2, 7, 8, 3]), np.array([2, 9, 3])]
    assert rows_of_last_gelu(tmp_path / "whole", texts) == 7
    assert rows_of_last_gelu(tmp_path / "first", texts) == 2


def rows_of_last_gelu(directory: Path, rows: list[npt.NDArray[np.int64]]) -> int:
    """How many tokens the last feed-forward layer works on."""
    model = onnx.load(str(directory / CPU_FILE))
    last = [node.output[0] for node in model.graph.node if node.op_type == "Gelu"][-1]
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    session = onnxruntime.InferenceSession(model.SerializeToString())
    inputs = [entry.name for entry in session.get_inputs()]
    (found,) = session.run([last], batching.feeds(rows, inputs, 0, np.zeros(len(rows), np.int64)))
    return len(found)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_neighbours_change_no_bit_of_a_first_token(tmp_path: Path, precision: str) -> None:
    source = save_sentence_transformers(tmp_path / "cls", pooling="cls")
    options = ExportOptions(output=tmp_path / "out", verify=False, precisions=(precision,), min_cosine=-1.0)
    export(str(source), options)
    texts = [text or "one" for text in TEXTS] * 5
    with EmbeddingModel(tmp_path / "out", threads=2) as model:
        together = model.encode(texts)
        np.testing.assert_array_equal(together[::-1], model.encode(texts[::-1]))
        for text, vector in zip(texts[:6], together, strict=False):
            np.testing.assert_array_equal(model.encode(text), vector)


def test_prompts_left_out_of_the_pooling_need_every_token(tmp_path: Path) -> None:
    """The first token that counts is not the first of the text, and is known only at run time."""
    prompts = {"query": "query: "}
    source = save_sentence_transformers(tmp_path / "c", pooling="cls", include_prompt=False, prompts=prompts)
    assert_vectors_agree(source, tmp_path / "out")
