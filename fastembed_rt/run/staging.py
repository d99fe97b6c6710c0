"""All inputs of a batch in one page-locked buffer that goes to the GPU in one copy, and one copy back.

A copy costs the host about as much as the launch of a kernel, whatever its size up to some hundred kilobytes: a graph
has six inputs, and six copies took a third of the time of one text. Nothing here is loaded for other providers.
"""

from __future__ import annotations

import ctypes
import mmap
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import ProviderUnavailableError
from .batching import Feeds
from .captures import apart, cuda_runtime, forget_error
from .providers import load_onnxruntime

ALIGNED = 256  # bytes: what CUDA's own allocations have, and no kernel wants more
PORTABLE = 1  # cudaHostRegisterPortable
TO_DEVICE, TO_HOST = 1, 2  # cudaMemcpyKind
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Layout:
    """Where the inputs of a batch lie in its buffer."""

    places: Mapping[str, tuple[int, np.dtype[Any], tuple[int, ...]]]  # input -> first byte, type, shape
    size: int  # bytes

    @classmethod
    def of(cls, feeds: Feeds) -> Layout:
        """One after the other, each at a multiple of ALIGNED."""
        places, size = {}, 0
        for name, array in feeds.items():
            places[name] = (size, array.dtype, array.shape)
            size += -(-array.nbytes // ALIGNED) * ALIGNED
        return cls(places, size)

    def put(self, feeds: Feeds, buffer: Bytes) -> None:
        """Write the inputs into a buffer of at least `size` bytes."""
        for name, (start, dtype, shape) in self.places.items():
            array = feeds[name]
            buffer[start : start + array.nbytes].view(dtype).reshape(shape)[...] = array


class Staging:
    """The buffers of one batch at a time, on the host and on the device; they grow with what comes."""

    def __init__(self, host: PinnedMemory, device: int) -> None:
        """`device` is the GPU's number."""
        self._host, self._device = host, device
        self._here: Buffer | None = None
        self._there: Any = None  # OrtValue of bytes

    def bind(self, binding: Any, feeds: Feeds) -> Layout:
        """Bind a graph's inputs to their places on the device, for batches of these shapes; `send` fills them."""
        layout = Layout.of(feeds)
        if self._here is None or len(self._here.array) < layout.size:
            room = layout.size if self._here is None else max(layout.size, 2 * len(self._here.array))
            self._here = self._host.allocate(room)
            values = load_onnxruntime().OrtValue
            self._there = values.ortvalue_from_shape_and_type((room,), np.uint8, "cuda", self._device)
        address = self._there.data_ptr()
        for name, (start, dtype, shape) in layout.places.items():
            binding.bind_input(name, "cuda", self._device, dtype, shape, address + start)
        return layout

    def send(self, layout: Layout, feeds: Feeds) -> None:
        """Copy the inputs of a batch to where they are bound: one copy."""
        assert self._here is not None
        layout.put(feeds, self._here.array)
        self._host.send(self._here.array, self._there, layout.size)


@dataclass(eq=False)
class Buffer:
    """Bytes of host memory."""

    array: Bytes


class PinnedMemory:
    """Host memory that the GPU copies from and to by itself.

    `works` is False where CUDA's runtime is not found or locks nothing; onnxruntime copies then.
    """

    def __init__(self, device: int) -> None:
        """`device` is the GPU's number."""
        self._device = device
        self._runtime = cuda_runtime()

    @property
    def works(self) -> bool:
        """Whether buffers are page-locked."""
        return self._runtime is not None

    def allocate(self, size: int) -> Buffer:
        """A buffer of at least a byte, page-locked for as long as it lives; where that fails, ordinary memory, which is
        only slower to copy."""
        # Pages of its own: CUDA locks whole ones, and none twice.
        whole = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        room = np.empty(whole + mmap.PAGESIZE, np.uint8)
        start = -room.ctypes.data % mmap.PAGESIZE
        buffer, runtime = Buffer(room[start : start + size]), self._runtime  # which another thread may give up
        if runtime is not None:
            address = ctypes.c_void_p(buffer.array.ctypes.data)
            runtime.cudaSetDevice(self._device)
            if runtime.cudaHostRegister(address, ctypes.c_size_t(whole), PORTABLE) == 0:
                # The array is held until it is unlocked, whoever drops the buffer first.
                weakref.finalize(buffer, _unlock, runtime, buffer.array)
            else:
                forget_error(runtime)
                self._runtime = None
        return buffer

    def send(self, array: Bytes, value: Any, size: int) -> None:
        """Copy the first `size` bytes of a buffer to the device, done when this returns.

        Raises:
            ProviderUnavailableError: CUDA does not copy.
        """
        runtime = self._runtime
        if runtime is None:
            value.update_inplace(array)  # the whole of it
            return
        self._copy(runtime, value.data_ptr(), array.ctypes.data, size, TO_DEVICE)

    def fetch(self, value: Any, buffer: Buffer) -> npt.NDArray[np.float32]:
        """A float32 value of the device by way of a buffer of its size, in memory of its own; errors as for `send`."""
        runtime = self._runtime
        if runtime is None:
            made: npt.NDArray[np.float32] = value.numpy()
            return made
        shape = tuple(value.shape())
        size = 4 * int(np.prod(shape))
        self._copy(runtime, buffer.array.ctypes.data, value.data_ptr(), size, TO_HOST)
        return buffer.array[:size].view(np.float32).reshape(shape).copy()

    def _copy(self, runtime: Any, to: int, source: int, size: int, kind: int) -> None:
        # Between page-locked memory and the device, this returns when all is there, and no stream of onnxruntime
        # waits for it: those are non-blocking.
        addresses = (ctypes.c_void_p(to), ctypes.c_void_p(source))
        # The device is that of a thread: another session's may have been this one's last.
        status = int(runtime.cudaSetDevice(self._device)) or int(
            runtime.cudaMemcpy(*addresses, ctypes.c_size_t(size), kind)
        )
        if status:
            forget_error(runtime)
            raise ProviderUnavailableError(f"CUDA does not copy a batch to or from device {self._device}: {status}")


def _unlock(runtime: Any, array: Bytes) -> None:
    with apart():  # in whichever thread the buffer goes
        if runtime.cudaHostUnregister(ctypes.c_void_p(array.ctypes.data)):
            forget_error(runtime)
