"""INT8 with our own operators on texts of every length that long-context architectures read, against torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import WORDS, reference_vectors, save_sentence_transformers

from fastembed_rt import EmbeddingModel, native
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Vectors = npt.NDArray[np.float32]

LENGTHS = (16, 128, 512, 2_048, 8_192)  # words, each of which is a token or more
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "modernbert": {"local_attention": 128},
    "gte": {},
    "jina_bert": {},
}


def texts_of(words: int) -> list[str]:
    random = np.random.default_rng(words)
    return [" ".join(random.choice(WORDS[:22], words)) for _ in range(2)]


def cosines(model_type: str, length: int, work: Path) -> dict[int, float]:
    """The smaller cosine of two texts of each length, of INT8 here and fp32 on torch."""
    changes = {**ARCHITECTURES[model_type], "max_position_embeddings": length}
    source = save_sentence_transformers(work / "source", model_type, max_seq_length=length, **changes)
    options = ExportOptions(
        output=work / "made", precisions=("int8",), verify=False, min_cosine=0.9, trust_remote_code=True
    )
    export(str(source), options)
    found = {}
    with EmbeddingModel(work / "made", target="native", threads=2) as model:
        for words in (words for words in LENGTHS if words <= length):
            texts = texts_of(words)
            found[words] = float(np.sum(model.encode(texts) * reference_vectors(source, texts), axis=1).min())
    return found


def check(found: dict[int, float]) -> None:
    """Long texts are as near to fp32 as short ones: what INT8 costs here is the rounding of layers, not of shares.

    Of random weights, single texts of 16 words come out anywhere from 0.996 to 0.9995; averages of more tokens do not.
    """
    assert min(cosine for words, cosine in found.items() if words >= 512) > 0.999, found
    assert found[max(found)] > min(found[16], found[128]) - 2e-4, found


@pytest.mark.slow
def test_texts_up_to_2048_tokens_are_as_near_to_torch_as_short_ones(tmp_path: Path) -> None:
    check(cosines("modernbert", 2_048, tmp_path))


@pytest.mark.slow
@pytest.mark.parametrize("model_type", list(ARCHITECTURES))
def test_texts_of_8192_tokens_are_as_near_to_torch_as_short_ones(tmp_path: Path, model_type: str) -> None:
    check(cosines(model_type, 8_192, tmp_path))
