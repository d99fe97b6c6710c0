"""Names and facts of models by fastembed's records: what `add_custom_model` takes and `list_supported_models` gives."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from ...errors import InvalidInputError
from ...vectors.sparse import SparseVector


class Device(StrEnum):
    """Where a model runs."""

    CPU = "cpu"
    CUDA = "cuda"
    AUTO = "auto"


class PoolingType(StrEnum):
    """How token vectors become one; DISABLED: the graph has done it."""

    CLS = "CLS"
    MEAN = "MEAN"
    LAST_TOKEN = "LAST_TOKEN"
    DISABLED = "DISABLED"


POOLINGS = {"CLS": "cls", "MEAN": "mean", "LAST_TOKEN": "lasttoken"}  # as manifests name them


@dataclass(frozen=True)
class ModelSource:
    """Where a model comes from: a hub repository or, here, a directory."""

    hf: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        if self.hf is None and self.url is None:
            raise InvalidInputError("a model needs a source: hf= with a hub repository or a directory")


@dataclass(frozen=True)
class ModelDescription:
    """One registered model."""

    model: str
    sources: ModelSource
    model_file: str = "model.onnx"
    description: str = ""
    license: str = ""
    size_in_GB: float = 0.0  # noqa: N815 - fastembed's name
    additional_files: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class DenseModelDescription(ModelDescription):
    """One registered model that gives vectors of `dim` numbers."""

    dim: int | None = None
    tasks: dict[str, Any] | None = field(default_factory=dict)


@dataclass(frozen=True)
class SparseModelDescription(ModelDescription):
    """One registered model that gives weights of words."""

    requires_idf: bool | None = None
    vocab_size: int | None = None


@dataclass
class SparseEmbedding:
    """One text's weights of words."""

    values: npt.NDArray[Any]  # (k,) float32
    indices: npt.NDArray[Any]  # (k,) int64, ascending

    @classmethod
    def of(cls, vector: SparseVector) -> SparseEmbedding:
        """A vector of ours."""
        return cls(values=vector.values, indices=vector.indices)

    def as_object(self) -> dict[str, npt.NDArray[Any]]:
        """Both arrays by name."""
        return {"values": self.values, "indices": self.indices}

    def as_dict(self) -> dict[int, float]:
        """Values by index."""
        return dict(zip(self.indices.tolist(), map(float, self.values.tolist()), strict=True))

    @classmethod
    def from_dict(cls, data: dict[int, float]) -> SparseEmbedding:
        """What `as_dict` gave."""
        return cls(values=np.array(list(data.values())), indices=np.array(list(data), dtype=np.int64))
