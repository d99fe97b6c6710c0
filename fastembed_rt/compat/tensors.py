"""Arrays and torch's tensors: torch is imported when a call asks for one of its own, and never before."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependencyError

Array = npt.NDArray[Any]


class Device(str):
    """A device as "cpu" or "cuda:1" where torch is not loaded; reads and compares like torch.device."""

    __slots__ = ()

    @property
    def type(self) -> str:
        """The kind of device: cpu, cuda."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]
        """Its number, if it has one."""
        number = self.partition(":")[2]
        return int(number) if number else None

    def __eq__(self, other: object) -> bool:
        return str(self) == str(other)

    def __ne__(self, other: object) -> bool:
        return str(self) != str(other)

    __hash__ = str.__hash__


@cache
def installed() -> bool:
    """Whether torch is there; imports nothing."""
    return importlib.util.find_spec("torch") is not None


def loaded() -> Any:
    """The module torch if this process has imported it, None otherwise."""
    return sys.modules.get("torch")


def require(what: str) -> Any:
    """The module torch, imported now.

    Raises:
        MissingDependencyError: not installed; `what` asked for it.
    """
    if not installed():
        raise MissingDependencyError(f"{what} gives torch tensors, and torch is not installed; pip install torch")
    import torch

    return torch


def is_tensor(given: object) -> bool:
    """Whether this is a torch tensor; imports nothing."""
    torch = loaded()
    return torch is not None and isinstance(given, torch.Tensor)


def device(name: str) -> Any:
    """A torch.device where torch is loaded, else what stands in for one."""
    torch = loaded()
    return Device(name) if torch is None else torch.device(name)


def to_array(given: Any) -> Array:
    """Tensors, arrays, numbers, or lists of them, as one array; sparse tensors dense, bfloat16 as float32."""
    if is_tensor(given):
        dense = given.detach().to_dense() if given.layout != loaded().strided else given.detach()
        narrow = dense.dtype == loaded().bfloat16
        array: Array = (dense.float() if narrow else dense).cpu().numpy()
        return array
    if isinstance(given, (list, tuple)) and given and is_tensor(given[0]):
        return np.stack([to_array(entry) for entry in given])
    return np.asarray(given)


def to_tensor(array: Array, place: str = "cpu") -> Any:
    """A tensor of an array, on a device; the memory is shared on the CPU."""
    torch = require("this call")
    tensor = torch.from_numpy(np.ascontiguousarray(array) if array.ndim else array.reshape(1))
    tensor = tensor if array.ndim else tensor[0]
    return tensor if place == "cpu" else tensor.to(place)


def like_theirs(array: Array) -> Any:
    """A tensor where torch is installed, else the array: of results that sentence-transformers gives as tensors."""
    return to_tensor(array) if installed() else array
