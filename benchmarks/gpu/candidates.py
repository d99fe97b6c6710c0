"""Who is measured: this package's graphs under a provider, sentence-transformers on torch, and a model by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt.errors import first_line

from .by_hand import ByHand

Vectors = npt.NDArray[np.float32]
# Texts, how many go together, tokens of the longest -> vectors (n, dim).
Encode = Callable[[list[str], int, int], Vectors]


class ContenderError(Exception):
    """A contender failed in the middle of a measurement: the others are measured without it."""

    def __init__(self, who: str, why: Exception) -> None:
        super().__init__(f"{who}: {type(why).__name__}: {first_line(why)}")
        self.who = who


@contextmanager
def failing(who: str) -> Iterator[None]:
    """What fails inside is this contender's."""
    try:
        yield
    except ContenderError:
        raise
    except Exception as error:  # memory of the card, a kernel that is not there: whatever it is
        raise ContenderError(who, error) from error


@dataclass(frozen=True)
class Contender:
    """One row of the comparison."""

    name: str
    title: str
    bytes_per_weight: int
    open: Callable[[Path, Path], Encode]  # checkpoint, model directory
    ours: bool


def torch_model(checkpoint: Path, device: str, dtype: str) -> Any:
    """sentence-transformers with torch's scaled dot-product attention."""
    import torch
    from sentence_transformers import SentenceTransformer

    # float32 means float32, for the reference; half precision is not concerned.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    options = {"attn_implementation": "sdpa"}
    model = SentenceTransformer(str(checkpoint), device=device, local_files_only=True, model_kwargs=options)
    return model.to(dtype=getattr(torch, dtype)).eval()


def _torch(device: str, dtype: str, *, compiled: bool = False) -> Callable[[Path, Path], Encode]:
    def open_it(checkpoint: Path, _: Path) -> Encode:
        model = torch_model(checkpoint, device, dtype)
        if compiled:
            model.compile(dynamic=True)

        def encode(texts: list[str], batch: int, length: int) -> Vectors:
            made = model.encode(texts, batch_size=batch, show_progress_bar=False)
            return np.asarray(made, dtype=np.float32)

        return encode

    return open_it


def _own(name: str) -> Callable[[Path, Path], Encode]:
    def open_it(_: Path, directory: Path) -> Encode:
        from fastembed_rt import EmbeddingModel

        models: dict[int, EmbeddingModel] = {}

        def encode(texts: list[str], batch: int, length: int) -> Vectors:
            tokens = batch * length  # 0: as many as it takes by itself
            if tokens not in models:
                for model in models.values():
                    model.close()
                models.clear()
                models[tokens] = EmbeddingModel(directory, max_batch_tokens=tokens or None, **ENGINES[name])
            made: Vectors = models[tokens].encode(texts)
            return made

        return encode

    return open_it


def _by_hand(device: str, dtype: str, *, compiled: bool) -> Callable[[Path, Path], Encode]:
    def open_it(checkpoint: Path, _: Path) -> Encode:
        model = ByHand(checkpoint, device, dtype, compiled=compiled)

        def encode(texts: list[str], batch: int, length: int) -> Vectors:
            rows = model.ids(texts)
            return np.concatenate([model.vectors(rows[at : at + batch]) for at in range(0, len(rows), batch)])

        return encode

    return open_it


REFERENCE = "st-fp16"
BY_HAND = {  # contenders that take ids, too: device, type, whether it is compiled
    "by-hand-fp16": ("cuda", "float16", True),
    "by-hand-fp32": ("cpu", "float32", False),
}
# Options of this package's models. Each names its target: another, taken where its own does not run, is no contender.
ENGINES: dict[str, Any] = {
    "rt-cuda-fp16": {"provider": "cuda", "precision": "fp16", "target": "cuda-native"},
    "rt-cuda-plain-fp16": {"provider": "cuda", "precision": "fp16", "target": "cuda"},
    "rt-cuda-bf16": {"provider": "cuda", "precision": "bf16", "target": "cuda-native"},
    "rt-cuda-fp8": {"provider": "cuda", "precision": "fp8", "target": "cuda-native"},
    "rt-tensorrt-fp16": {"provider": "tensorrt", "precision": "fp16"},
    "rt-cpu-fp32": {"provider": "cpu", "precision": "fp32"},
}
ON_GPU = {
    "rt-cuda-fp16": Contender("rt-cuda-fp16", "fastembed-rt, CUDA fp16", 2, _own("rt-cuda-fp16"), ours=True),
    "rt-cuda-plain-fp16": Contender(
        "rt-cuda-plain-fp16", "fastembed-rt, CUDA fp16, stock operators", 2, _own("rt-cuda-plain-fp16"), ours=True
    ),
    "rt-cuda-bf16": Contender("rt-cuda-bf16", "fastembed-rt, CUDA bf16", 2, _own("rt-cuda-bf16"), ours=True),
    "rt-cuda-fp8": Contender("rt-cuda-fp8", "fastembed-rt, CUDA fp8", 2, _own("rt-cuda-fp8"), ours=True),
    "rt-tensorrt-fp16": Contender("rt-tensorrt-fp16", "fastembed-rt, TensorRT", 2, _own("rt-tensorrt-fp16"), ours=True),
    "st-fp16": Contender("st-fp16", "sentence-transformers, torch fp16 SDPA", 2, _torch("cuda", "float16"), ours=False),
    "st-fp16-compiled": Contender(
        *("st-fp16-compiled", "sentence-transformers, torch.compile'd fp16", 2),
        _torch("cuda", "float16", compiled=True),
        ours=False,
    ),
    "by-hand-fp16": Contender(
        *("by-hand-fp16", "by hand: torch.compile, varlen attention, fused GELU", 2),
        _by_hand("cuda", "float16", compiled=True),
        ours=False,
    ),
}
ON_CPU = {  # for --dry-run: the same code on any machine
    "rt-cpu-fp32": Contender("rt-cpu-fp32", "fastembed-rt, CPU fp32", 4, _own("rt-cpu-fp32"), ours=True),
    "st-fp32": Contender("st-fp32", "sentence-transformers, torch fp32", 4, _torch("cpu", "float32"), ours=False),
    "by-hand-fp32": Contender(
        *("by-hand-fp32", "by hand: the same code without torch.compile", 4),
        _by_hand("cpu", "float32", compiled=False),
        ours=False,
    ),
}
EXPORTS = {  # targets and precisions that a contender needs
    "rt-cuda-fp16": ("cuda", "fp16"),
    "rt-cuda-plain-fp16": ("cuda", "fp16"),
    "rt-cuda-bf16": ("cuda", "bf16"),
    "rt-cuda-fp8": ("cuda", "fp8"),
    "rt-tensorrt-fp16": ("tensorrt", "fp16"),
    "rt-cpu-fp32": ("cpu", "fp32"),
}
# Cosines to torch in float32 that a contender must reach before it is timed; of vectors as they are.
BOUNDS = {
    **{"rt-cuda-bf16": 0.995, "rt-cuda-fp8": 0.99, "rt-cpu-fp32": 0.99999, "st-fp32": 0.99999},
    "by-hand-fp32": 0.9999,  # GELU is the tanh form
}
BOUND = 0.9995
