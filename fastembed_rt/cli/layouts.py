"""How vectors of each kind lie in the files that the commands write: as JSON, as Parquet columns, as numpy arrays.

Knows arrays and formats; where the bytes go, and the texts and ids beside them, writers.py says.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from ..bulk.extras import flat
from .writers import NotFiniteError

if TYPE_CHECKING:
    from ..models.token_states import TokenVectors
    from ..vectors.sparse import SparseVector

Array = npt.NDArray[Any]
NPY_HEADER_BYTES = 128  # room for any shape, and a multiple of 64: what the format asks for, so that a map is aligned
FLOAT32 = np.dtype(np.float32)


class Layout(Protocol):
    """What is written of a text's vectors, or of another result, in each format."""

    plural: ClassVar[str]  # what it holds, for messages
    arrays_in: ClassVar[str]  # npy or npz, "" where it is no arrays

    def json(self, value: Any) -> str:
        """Members of a JSON object, without braces. Raises NotFiniteError for what JSON cannot say."""

    def fields(self, pyarrow: Any) -> list[tuple[str, Any]]:
        """Parquet columns: names and types."""

    def columns(self, pyarrow: Any, values: Sequence[Any]) -> list[Any]:
        """What these columns hold for several texts."""

    def write_arrays(self, stream: BinaryIO, values: Iterable[Any], fingerprint: str) -> None:
        """All of them as a .npy or .npz file."""

    def size(self, value: Any) -> int:
        """Numbers of one text, which bound what is held in memory. RuntimeError where they are not such numbers."""

    def is_finite(self, value: Any) -> bool:
        """Whether all numbers of one text are."""


@dataclass(frozen=True)
class Dense:
    """Vectors of one length: `embedding`, or (n, width) as .npy."""

    plural: ClassVar[str] = "vectors of one length"
    arrays_in: ClassVar[str] = "npy"
    width: int
    dtype: np.dtype[Any] = FLOAT32
    _template: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # One format string for the whole vector: several times faster than json.dumps.
        object.__setattr__(self, "_template", _template(self.width, self.dtype))

    @property
    def shape(self) -> tuple[int, np.dtype[Any]]:
        """Numbers of a vector, and their type."""
        return self.width, self.dtype

    def json(self, value: Array) -> str:  # noqa: D102
        _check_finite(self, value)
        return f'"embedding": [{self._template % tuple(value.tolist())}]'

    def fields(self, pyarrow: Any) -> list[tuple[str, Any]]:  # noqa: D102
        return [("embedding", pyarrow.list_(pyarrow.from_numpy_dtype(self.dtype), self.width))]

    def columns(self, pyarrow: Any, values: Sequence[Array] | Array) -> list[Any]:  # noqa: D102
        joined = values.reshape(-1) if isinstance(values, np.ndarray) else np.concatenate(values)
        return [pyarrow.FixedSizeListArray.from_arrays(flat(joined.astype(self.dtype, copy=False)), self.width)]

    def write_arrays(self, stream: BinaryIO, values: Iterable[Array], fingerprint: str) -> None:
        """(n, width) in input order, n patched into the header at the end.

        A stream at the end of such a file gets more rows. There is no room for a fingerprint.
        """
        little = self.dtype.newbyteorder("<")
        row_bytes = self.width * self.dtype.itemsize
        count = max(stream.tell() - NPY_HEADER_BYTES, 0) // row_bytes
        if count == 0:
            stream.seek(0)
            stream.write(npy_header(0, self.width, little.str))
        for vector in values:
            stream.write(vector.astype(little, copy=False).tobytes())
            count += 1
        stream.seek(0)
        stream.write(npy_header(count, self.width, little.str))
        stream.seek(0, 2)

    def size(self, value: Array) -> int:  # noqa: D102
        if value.shape != (self.width,):
            raise RuntimeError(f"the model gave a vector of shape {value.shape}, not ({self.width},)")
        return self.width

    def is_finite(self, value: Array) -> bool:  # noqa: D102
        return bool(np.isfinite(value).all())


@dataclass(frozen=True)
class Sparse:
    """Weights of words: `indices` and `values`, or CSR arrays as scipy.sparse.load_npz reads them."""

    plural: ClassVar[str] = "sparse vectors"
    arrays_in: ClassVar[str] = "npz"
    dim: int  # size of the vocabulary

    def json(self, value: SparseVector) -> str:  # noqa: D102
        _check_finite(self, value)
        weights = _template(len(value), FLOAT32) % tuple(value.values.tolist())
        return f'"indices": {value.indices.tolist()}, "values": [{weights}]'

    def fields(self, pyarrow: Any) -> list[tuple[str, Any]]:  # noqa: D102
        return [("indices", pyarrow.list_(pyarrow.int32())), ("values", pyarrow.list_(pyarrow.float32()))]

    def columns(self, pyarrow: Any, values: Sequence[SparseVector]) -> list[Any]:  # noqa: D102
        starts = _starts(pyarrow, [len(value) for value in values])
        indices = np.concatenate([value.indices for value in values]).astype(np.int32)
        weights = np.concatenate([value.values for value in values])
        return [pyarrow.ListArray.from_arrays(starts, pyarrow.array(part)) for part in (indices, weights)]

    def write_arrays(self, stream: BinaryIO, values: Iterable[SparseVector], fingerprint: str) -> None:
        """`indptr` (n + 1), `indices` and `data`, with `shape` and `format` for scipy."""
        with contextlib.ExitStack() as stack:
            ends, indices, data = _spooled(stack, ("indptr", np.int64), ("indices", np.int32), ("data", np.float32))
            ends.add(np.zeros(1, np.int64))
            for value in values:
                indices.add(value.indices)
                data.add(value.values)
                ends.add(np.array([data.count]))
            about = {"shape": np.array([ends.count - 1, self.dim]), "format": np.array(b"csr")}
            _write_npz(stream, [indices, ends, data], {**about, "fingerprint": np.array(fingerprint)})

    def size(self, value: SparseVector) -> int:  # noqa: D102
        return 2 * len(value)

    def is_finite(self, value: SparseVector) -> bool:  # noqa: D102
        return bool(np.isfinite(value.values).all())


@dataclass(frozen=True)
class Tokens:
    """A vector a token: `token_embeddings`, a list of vectors for each text, or all of them with `lengths` as .npz.

    With `offsets`, those of dense models: the first character of each token, and the one behind its last.
    """

    plural: ClassVar[str] = "token vectors"
    arrays_in: ClassVar[str] = "npz"
    dim: int
    offsets: bool = False

    def json(self, value: Array | TokenVectors) -> str:  # noqa: D102
        vectors = _vectors(value)
        _check_finite(self, value)
        template = _template(self.dim, FLOAT32)
        made = f'"token_embeddings": [{", ".join(f"[{template % tuple(row)}]" for row in vectors.tolist())}]'
        return f'{made}, "offsets": {_offsets(value).tolist()}' if self.offsets else made

    def fields(self, pyarrow: Any) -> list[tuple[str, Any]]:  # noqa: D102
        made = [("token_embeddings", pyarrow.list_(pyarrow.list_(pyarrow.float32(), self.dim)))]
        return [*made, ("offsets", pyarrow.list_(pyarrow.list_(pyarrow.int32(), 2)))] if self.offsets else made

    def columns(self, pyarrow: Any, values: Sequence[Array | TokenVectors]) -> list[Any]:  # noqa: D102
        starts = _starts(pyarrow, [len(value) for value in values])

        def column(parts: Iterator[Array], width: int, dtype: Any) -> Any:
            flat = np.concatenate([part.reshape(-1) for part in parts]).astype(dtype, copy=False)
            inner = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat), width)
            return pyarrow.ListArray.from_arrays(starts, inner)

        made = [column(map(_vectors, values), self.dim, np.float32)]
        return [*made, column(map(_offsets, values), 2, np.int32)] if self.offsets else made

    def write_arrays(self, stream: BinaryIO, values: Iterable[Array | TokenVectors], fingerprint: str) -> None:
        """`token_embeddings` (tokens of all texts, dim) and `lengths` (n,); `offsets` (tokens of all texts, 2)."""
        with contextlib.ExitStack() as stack:
            vectors, places, lengths = _spooled(
                stack, ("token_embeddings", np.float32, self.dim), ("offsets", np.int32, 2), ("lengths", np.int64)
            )
            for value in values:
                vectors.add(_vectors(value))
                lengths.add(np.array([len(value)]))
                if self.offsets:
                    places.add(_offsets(value))
            arrays = [vectors, lengths, places] if self.offsets else [vectors, lengths]
            _write_npz(stream, arrays, {"fingerprint": np.array(fingerprint)})

    def size(self, value: Array | TokenVectors) -> int:  # noqa: D102
        return len(value) * self.dim

    def is_finite(self, value: Array | TokenVectors) -> bool:  # noqa: D102
        return bool(np.isfinite(_vectors(value)).all())


@dataclass(frozen=True)
class Ranking:
    """A document's place in its input, from 0, and its score."""

    plural: ClassVar[str] = "scores"
    arrays_in: ClassVar[str] = ""

    def json(self, value: tuple[int, float]) -> str:  # noqa: D102
        _check_finite(self, value)
        return f'"index": {value[0]}, "score": {float(str(np.float32(value[1])))!r}'

    def fields(self, pyarrow: Any) -> list[tuple[str, Any]]:  # noqa: D102
        return [("index", pyarrow.int64()), ("score", pyarrow.float32())]

    def columns(self, pyarrow: Any, values: Sequence[tuple[int, float]]) -> list[Any]:  # noqa: D102
        types = (pyarrow.int64(), pyarrow.float32())
        return [pyarrow.array(part, kind) for part, kind in zip(zip(*values, strict=True), types, strict=True)]

    def write_arrays(self, stream: BinaryIO, values: Iterable[tuple[int, float]], fingerprint: str) -> None:  # noqa: D102
        raise NotImplementedError

    def size(self, value: tuple[int, float]) -> int:  # noqa: D102
        return 2

    def is_finite(self, value: tuple[int, float]) -> bool:  # noqa: D102
        return bool(np.isfinite(value[1]).all())


def npy_header(count: int, dim: int, descr: str = "<f4") -> bytes:
    """Header of a version 1.0 .npy file of (count, dim), always NPY_HEADER_BYTES long."""
    fields = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': ({count}, {dim}), }}"
    prefix = b"\x93NUMPY\x01\x00"
    room = NPY_HEADER_BYTES - len(prefix) - 2
    return prefix + room.to_bytes(2, "little") + fields.ljust(room - 1).encode("ascii") + b"\n"


def _template(count: int, dtype: np.dtype[Any]) -> str:
    # Nine digits give every float32 back exactly; an integer would lose the sign of -0.0.
    return ", ".join(["%.8e" if dtype.kind == "f" else "%d"] * count)


def _check_finite(layout: Layout, value: Any) -> None:
    if not layout.is_finite(value):
        raise NotFiniteError("not finite")


def _vectors(value: Array | TokenVectors) -> Array:
    return value if isinstance(value, np.ndarray) else value.vectors


def _offsets(value: Array | TokenVectors) -> Array:
    assert not isinstance(value, np.ndarray)  # whoever asks for offsets has asked the model for them
    return value.offsets


def _starts(pyarrow: Any, lengths: Sequence[int]) -> Any:
    return pyarrow.array(np.cumsum([0, *lengths], dtype=np.int32))


class _Spool:
    """One array of an archive while it grows: on disk, since its length comes before its numbers and is known last."""

    def __init__(self, file: BinaryIO, name: str, dtype: Any, width: int | None = None) -> None:
        self.file, self.name, self.count = file, name, 0
        self._dtype, self._width = np.dtype(dtype).newbyteorder("<"), width

    def add(self, rows: Array) -> None:
        """More rows behind the others."""
        self.file.write(rows.astype(self._dtype, copy=False).tobytes())
        self.count += len(rows)

    def copy_to(self, member: Any) -> None:
        """The whole .npy file."""
        shape = (self.count,) if self._width is None else (self.count, self._width)
        about = {"descr": self._dtype.str, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, about)
        self.file.seek(0)
        shutil.copyfileobj(self.file, member, 1 << 20)


def _spooled(stack: contextlib.ExitStack, *arrays: tuple[Any, ...]) -> list[_Spool]:
    return [_Spool(stack.enter_context(tempfile.TemporaryFile()), *about) for about in arrays]


def _write_npz(stream: BinaryIO, spools: Sequence[_Spool], arrays: dict[str, Array]) -> None:
    with zipfile.ZipFile(stream, "w") as archive:
        # ZipInfo without a time, so that the same contents give the same bytes.
        for spool in spools:
            with archive.open(zipfile.ZipInfo(f"{spool.name}.npy"), "w", force_zip64=True) as member:
                spool.copy_to(member)
        for name, array in arrays.items():
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)
