"""How far a contender's vectors and tokens are from the reference's: numbers, and when they disqualify."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Below this mean the vectors are another model's: wrong pooling, a missing prompt, texts cut elsewhere. Plain dynamic
# INT8, the least faithful of what people use, stays above 0.99.
LEAST_MEAN_COSINE = 0.98
LEAST_CORRELATION = 0.9  # likewise of a request's scores, which INT8 moves further


def cosines(vectors: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Cosine of each row with the same row of the reference: (n, dim) and (n, dim) -> (n,)."""
    if vectors.shape != reference.shape:
        raise ValueError(f"vectors have shape {vectors.shape}, the reference's {reference.shape}")
    result = np.empty(len(vectors))
    for k, row in enumerate(zip(vectors, reference, strict=True)):  # one by one: rows of a sparse model are long
        left, right = (side.astype(np.float64) for side in row)
        result[k] = left @ right / max(np.linalg.norm(left) * np.linalg.norm(right), 1e-30)
    return result


def summary(vectors: npt.NDArray[np.float32], reference: npt.NDArray[np.float32]) -> dict[str, Any]:
    """Cosines to the reference and the largest difference of a component."""
    found = cosines(vectors, reference)
    return {
        "texts": len(found),
        "cosine_mean": float(found.mean()),
        "cosine_p1": float(np.quantile(found, 0.01)),
        "cosine_min": float(found.min()),
        "max_abs_diff": float(np.abs(vectors.astype(np.float64) - reference).max()),
    }


def objection(found: dict[str, Any], *, scores: bool = False) -> str | None:
    """Why these vectors, or scores, are not this model's; None when they are."""
    mean = found["cosine_mean"]
    if scores and not mean >= LEAST_CORRELATION:
        return f"its scores are not this model's: mean correlation {mean:.4f} with the reference"
    if not scores and not mean >= LEAST_MEAN_COSINE:  # NaN objects too
        return f"its vectors are not this model's: mean cosine {mean:.4f} to the reference"
    return None


def token_objection(counts: Sequence[int], reference: Sequence[int]) -> str | None:
    """Why a contender does not do the same work; None when it sees as many tokens in every text."""
    if len(counts) != len(reference):
        return f"it counted tokens of {len(counts)} texts instead of {len(reference)}"
    different = [k for k, pair in enumerate(zip(counts, reference, strict=True)) if pair[0] != pair[1]]
    if not different:
        return None
    first = different[0]
    return (
        f"it tokenizes differently: {len(different)} of {len(reference)} texts, "
        f"the first with {counts[first]} tokens instead of {reference[first]}; longest text {max(counts)} "
        f"instead of {max(reference)}"
    )
