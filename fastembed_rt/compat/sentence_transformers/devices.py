"""Where a model runs: device, dtype and pools as sentence-transformers has them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import numpy as np

from ...errors import InvalidInputError
from ...models.base import WithMaxLength
from ...models.kept_options import KeptOptions
from .. import tensors
from ..opening import provider_of


class OnDevice:
    """A model of ours that is loaded anew for another device."""

    opens: ClassVar[type[WithMaxLength]]
    _given_limit: Callable[[], int | None]
    _model: Any
    _name: Any
    _options = KeptOptions()
    _open: Callable[[int | None], None]
    _opened: Callable[[int | None, Mapping[str, Any]], Any]

    @property
    def device(self) -> Any:
        """Where the model runs: a torch.device where torch is loaded, else a str that compares like one."""
        provider = self._model.provider
        if provider not in ("cuda", "tensorrt"):
            return tensors.device("cpu")
        return tensors.device(f"cuda:{self._model.device_ids[0]}")

    @property
    def _place(self) -> str:
        return "cpu" if self._model.provider == "cpu" else str(self.device)

    def to(
        self, device: Any = None, dtype: Any = None, non_blocking: bool = False, *, memory_format: Any = None
    ) -> Self:
        """Load the model anew where it does not run on `device` yet; a dtype is for the graph's own precision alone.

        Args:
            device: as at load, or a dtype of torch alone.
            dtype: of torch; the one that the graph has, or an error.
            non_blocking: without effect.
            memory_format: without effect.

        Raises:
            InvalidInputError: a device or precision that the loaded graph does not have.
            ProviderUnavailableError: the device's provider does not run here.
        """
        if str(device).startswith("torch."):  # to(dtype) and to(dtype, non_blocking)
            device, dtype = None, device
        if dtype is not None:
            self._same_precision(str(dtype).removeprefix("torch."))
        if device is None or str(device) == str(self.device):
            return self
        wanted = provider_of(device)
        here = {"provider": self._model.provider, "device_ids": list(self._model.device_ids)}
        if {**here, **wanted} != here:
            options, limit, old = self._options, self._given_limit(), self._model
            self._options = {**{k: options[k] for k in options if k not in ("target", "device_ids")}, **wanted}
            try:
                self._open(limit)
            except Exception:
                self._options = options
                raise
            old.close()
        return self

    def cpu(self) -> Self:
        """`to("cpu")`."""
        return self.to("cpu")

    def cuda(self, device: int | None = None) -> Self:
        """`to("cuda")`, or the GPU of that number."""
        return self.to("cuda" if device is None else f"cuda:{device}")

    def eval(self) -> Self:
        """The model itself: it is never in training."""
        return self

    @property
    def training(self) -> bool:
        """False."""
        return False

    def half(self) -> Self:
        """The model itself where its graph is fp16, else an error: precision is chosen when a model loads."""
        return self._same_precision("float16")

    def bfloat16(self) -> Self:
        """The model itself where its graph is bf16, else an error."""
        return self._same_precision("bfloat16")

    def float(self) -> Self:
        """The model itself where its graph is fp32, else an error."""
        return self._same_precision("float32")

    def _same_precision(self, dtype: str) -> Self:
        names = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
        if names.get(dtype) != self._model.precision:
            raise InvalidInputError(
                f"{dtype} is not possible: the graph that runs is {self._model.precision}; load the model with "
                f"precision={names.get(dtype, 'fp32')!r}"
            )
        return self

    @property
    def dtype(self) -> Any:
        """Of the vectors: float32; torch's where torch is loaded."""
        torch = tensors.loaded()
        return np.dtype(np.float32) if torch is None else torch.float32

    def start_multi_process_pool(self, target_devices: list[Any] | None = None) -> dict[str, Any]:
        """What `pool=` takes: this model, whose threads use all CPUs, or one with a process for each GPU named.

        Args:
            target_devices: such as ["cpu", "cpu"] or ["cuda:0", "cuda:1"].
        """
        devices = ["cpu"] if target_devices is None else list(target_devices)
        pool = Pool({"input": None, "output": None, "processes": [str(device) for device in devices]})
        wanted = provider_of(devices)
        if wanted["provider"] != "cpu":
            pool.model = self._opened(self._given_limit(), {**self._options, **wanted})
        return pool

    @staticmethod
    def stop_multi_process_pool(pool: dict[str, Any]) -> None:
        """Let the processes of a pool go, if it has some."""
        model = getattr(pool, "model", None)
        if model is not None:
            model.close()

    def _working(self, device: Any, pool: dict[str, Any] | None, chunk_size: int | None) -> Any:
        """The model of ours that does a call's work."""
        if chunk_size is not None and chunk_size <= 0:
            raise InvalidInputError(f"chunk_size {chunk_size} is not possible; expected 1 or more")
        if pool is not None:
            return getattr(pool, "model", None) or self._model
        if device is not None and not (isinstance(device, (list, tuple)) and all(str(d) == "cpu" for d in device)):
            self.to(device)
        return self._model


class Pool(dict[str, Any]):
    """What `start_multi_process_pool` gives."""

    model: Any = None  # of ours, where the pool is not the model that made it
