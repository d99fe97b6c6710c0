"""What two libraries give for one call: the same types, shapes, dtypes, kinds of errors; numbers that are close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tolerances import REFERENCE, close

KINDS = (TypeError, ValueError, FileNotFoundError, NotADirectoryError, AttributeError, ImportError, OSError)


def outcome(call: Callable[[Any], Any], model: Any) -> Any:
    """What a call gives, or the exception that it raises."""
    try:
        return call(model)
    except Exception as error:  # noqa: BLE001 - compared with what the other library raises
        return error


def same(ours: Any, theirs: Any, of: float = REFERENCE) -> None:
    """Assert that two results are alike, entry by entry."""
    if isinstance(theirs, Exception):
        wanted = next((kind for kind in KINDS if isinstance(theirs, kind)), type(theirs))
        assert isinstance(ours, wanted), f"{ours!r} for {theirs!r}"
        return
    if isinstance(ours, Exception):
        raise ours
    assert type(ours) is type(theirs), f"{type(ours)} for {type(theirs)}"
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name, value in theirs.items():
            same(ours[name], value, of)
    elif isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for entry, other in zip(ours, theirs, strict=True):
            same(entry, other, of)
    elif isinstance(theirs, torch.Tensor):
        assert (ours.shape, ours.dtype, ours.layout) == (theirs.shape, theirs.dtype, theirs.layout)
        assert ours.device == theirs.device
        left, right = ((side.to_dense() if side.is_sparse else side).detach().numpy() for side in (ours, theirs))
        numbers(left, right, of)
    elif isinstance(theirs, np.ndarray):
        numbers(ours, theirs, of)
    elif isinstance(theirs, float | np.float32):
        near = of * max(1.0, abs(float(theirs)))
        assert abs(ours - theirs) <= near, (ours, theirs)
    else:
        assert ours == theirs


def numbers(ours: Any, theirs: Any, of: float) -> None:
    """Floats that are close; of codes, few that fell on the other side of a step's border."""
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    if theirs.dtype.kind == "f":
        close(ours, theirs, of)
    elif theirs.size:
        assert np.mean(ours != theirs) < 0.05
