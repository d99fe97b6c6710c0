"""Our operators on an NVIDIA GPU: what the other files ask of them on stand-ins, asked of the card.

The numbers beside numpy and torch, refusals, and the bits of a row in any number of rows. `doctor` says whether they
open cuBLASLt; these say whether each of them is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from cuda_stand_in.fp8 import E4M3
from cuda_stand_in.fp8 import run as run_fp8
from cuda_stand_in.sessions import TYPES, Card, fed, model
from onnx import TensorProto

ASKED = {
    "test_cuda_attention": (
        "test_a_text_has_the_same_bits_in_any_batch",
        "test_boundaries_of_no_sense_read_nothing",
        "test_distances_add_to_the_scores",
        "test_each_text_attends_to_itself",
        "test_large_scores_do_not_overflow",
        "test_one_product_of_queries_keys_and_values_is_read_by_strides",
        "test_tokens_that_fill_a_query_up_see_and_are_not_seen",
        "test_windows_and_causal_masks_hide_keys",
    ),
    "test_cuda_fp8": (
        "test_a_normalization_writes_its_rows_twice",
        "test_a_product_of_fp8_ends_in_its_bias_and_activation",
        "test_embeddings_are_written_twice_too",
        "test_rows_are_scaled_and_rounded",
    ),
    "test_cuda_operators": (
        "test_a_mean_is_that_of_each_text",
        "test_a_product_ends_in_its_bias_and_activation",
        "test_a_residual_a_bias_and_a_normalization_are_one",
        "test_embeddings_are_added_up_and_normalized_at_once",
        "test_many_threads_share_a_session",
        "test_normalizations_and_means_have_the_same_bits_wherever_they_lie",
        "test_rows_that_a_table_has_not_add_nothing",
    ),
    "test_cuda_rows": (
        "test_a_gate_opens_by_its_activation",
        "test_a_layer_behind_the_pooling_is_that_of_torch",
        "test_a_sum_goes_on_beside_its_normalization",
        "test_heads_are_normalized_and_turned_by_their_place",
        "test_tokens_become_unit_vectors",
        "test_words_weigh_what_their_logits_say",
    ),
}
for module, names in ASKED.items():  # each takes this file's fixture for its own
    globals().update({name: getattr(import_module(module), name) for name in names})
pytestmark = pytest.mark.gpu
Array = npt.NDArray[Any]
MANY = 4097
PARTS = ((0, 1), (4096, 4097), (7, 340), (0, 1000), (3, 19))  # rows that are asked for by themselves
SIZES = ((384, 1536), (1536, 384), (768, 3072), (3072, 768), (1024, 4096), (4096, 1024))


@pytest.fixture(scope="module")
def stand_in() -> Card:
    return Card()


def same(whole: Array, parts: Sequence[Array]) -> None:
    for (start, stop), part in zip(PARTS, parts, strict=True):
        assert part.tobytes() == whole[start:stop].tobytes(), f"rows {start} to {stop}"


@pytest.mark.parametrize("kind", list(TYPES))
@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("activation", ["", "gelu_tanh"])
def test_a_row_of_a_product_has_the_same_bits_in_any_number_of_rows(
    stand_in: Card, kind: str, inputs: int, outputs: int, activation: str
) -> None:
    """The deep ones among them would split their sums for few rows, were the algorithm not one for all."""
    random = np.random.default_rng(inputs)
    x = random.standard_normal((MANY, inputs)).astype(TYPES[kind])
    constants = [(random.standard_normal(shape) / 16).astype(TYPES[kind]) for shape in ((inputs, outputs), (outputs,))]
    options: dict[str, Any] = {"in_features": inputs, "out_features": outputs, "bias": 1}
    options |= {"activation": activation} if activation else {}
    session = stand_in.session(model(f"Linear{kind}", {"x": x}, constants, **options))
    whole = fed(session, {"x": x})
    same(whole, [fed(session, {"x": x[start:stop]}) for start, stop in PARTS])
    wanted = x[:8].astype(np.float64) @ constants[0].astype(np.float64) + constants[1].astype(np.float64)
    if not activation:
        np.testing.assert_allclose(whole[:8].astype(np.float64), wanted, atol=2e-2, rtol=8e-3)


@pytest.mark.parametrize(("inputs", "outputs"), SIZES)
@pytest.mark.parametrize("narrow", [False, True])
def test_a_row_of_a_product_in_fp8_has_them_too(stand_in: Card, inputs: int, outputs: int, narrow: bool) -> None:
    random = np.random.default_rng(inputs)
    x, weight = ((random.standard_normal(shape) * 30).astype(E4M3) for shape in ((MANY, inputs), (outputs, inputs)))
    options: dict[str, Any] = {"in_features": inputs, "out_features": outputs, "bias": 1, "scale": 1e-4}
    given = {"w": weight, "bias": random.standard_normal(outputs).astype(np.float16)}
    if narrow:
        given["out_scale"], options["activation"] = np.array([20.0], np.float32), "gelu_tanh"
    kind = TensorProto.FLOAT8E4M3FN if narrow else TensorProto.FLOAT16
    op = "Fp8LinearFp8" if narrow else "Fp8Linear"

    def rows(start: int, stop: int) -> Array:
        return run_fp8(stand_in, op, {"x": x[start:stop], **given}, [kind], **options)[0]

    whole = rows(0, MANY)
    same(whole, [rows(*part) for part in PARTS])
    assert np.isfinite(whole).all()
    assert np.ptp(whole.astype(np.float32)) > 0
    assert whole.dtype in (np.float16, ml_dtypes.float8_e4m3fn)
