"""How near two float32 results of the same mathematics come on any processor; `close` asserts it.

Rounding is relative: an operation errs by up to 2**-24 = 6e-8 of its result, a sum of n products by about sqrt(n) of
these, of the length of what is summed. In which order sums are taken, and by which formula exp, tanh and erf, depends
on the processor (the SSE, AVX2 and AVX-512 kernels of BLAS, torch and onnxruntime differ), on the number of threads and
on the shape of a batch. So a tolerance is a share of the length of the vector: 1e-6 of a vector of length one is 17
roundings, of one of length five it is three, which another processor's order of the same sums uses up.

What has to have the same bits is none of this: our own operators on any processor, a model asked twice, an INT8 text
alone and among others. Those tests compare with `assert_array_equal`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# Another library on the same weights: other orders and other formulas. It is also what the export's gate allows.
# At most 1.9e-6 over all architectures, poolings and the processors tried (T5, whose states are not normalized).
REFERENCE = 1e-5
# The same formulas on rows in another place of another batch, or with other threads: other orders alone.
# At most 2.5e-7 on the processors tried.
REORDERED = 1e-6


def close(found: Any, wanted: Any, of: float = REFERENCE, what: str = "rows") -> None:
    """Assert that no number of `found` is further from `wanted` than the share `of` of its row's length; NaN always is.

    Rows are along the last axis. Those shorter than one count as one: the states inside a model are of that size,
    whatever little comes out.
    """
    ours, theirs = (np.atleast_1d(np.asarray(given, np.float64)) for given in (found, wanted))
    assert ours.shape == theirs.shape
    lengths = np.maximum(np.linalg.norm(theirs, axis=-1), 1.0)
    off = np.abs(ours - theirs).max(axis=-1, initial=0) / lengths
    assert np.all(off <= of), f"{what} differ by {off.max():.2e} of their length, {of:.0e} is allowed: {off}"
