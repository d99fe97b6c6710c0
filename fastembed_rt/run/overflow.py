"""Whether products of unsigned and signed bytes overflow on this processor: asked of onnxruntime, not of a list.

Kernels without VNNI add pairs of products in 16 bits, and 2 x 255 x 127 does not fit. The question is a product whose
answer is known; it takes 5 ms, once a process, of models whose graph has such products.
"""

from __future__ import annotations

import base64
import functools
import zlib
from typing import Any

import numpy as np

# One MatMulIntegerToFloat, uint8 (4, 64) times int8 (64, 16) of 127s, scales 1; test_overflow.py makes it again.
ROWS, DEPTH, WEIGHT = 4, 64, 127
PROBE = (
    "c-rIOuxjSyGT~yZ;9@N2Vk`zCA;wB25#PiT-_jh<ypq)P)S{4lx19XM5-Z;1{9L`<%;ci{;{3D{A=ZMT{G?Q^9u5u%4gmpXC&qHG"
    "29EksFbYP&hy_~Q0*p?K#a=873=Q^C!oY$>h>wehgGq>ki;05;h#iuEf|X!FM!2AW6AKrEfS{8g7it+Jzz6_a$Q{1"
)


@functools.cache
def overflows(onnxruntime: Any) -> bool:
    """True when 255 x 127 summed DEPTH times comes out wrong."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        zlib.decompress(base64.b85decode(PROBE)), options, providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(["y"], {"x": np.full((ROWS, DEPTH), 255, np.uint8)})
    return bool((found != 255 * WEIGHT * DEPTH).any())
