"""What the card itself does: the rate of large matrix products, and of copying memory, with torch."""

from __future__ import annotations

import time
from typing import Any

ROUNDS = 20
SIZES = {"cuda": (8192, 1 << 31), "cpu": (256, 1 << 22)}  # rows of square matrices, bytes to copy


def measure(device: str) -> dict[str, Any]:
    """Operations a second by type, bytes a second: the best of ROUNDS, and every round."""
    import torch

    rows, size = SIZES[device]
    types = ("float16", "bfloat16") if device == "cuda" else ("float32",)
    found: dict[str, Any] = {"rows": rows, "bytes": size, "matrix": {}}
    for name in types:
        left, right = (torch.randn(rows, rows, device=device, dtype=getattr(torch, name)) for _ in range(2))
        seconds = _times(lambda left=left, right=right: left @ right, device)
        found["matrix"][name] = {"operations_per_second": 2 * rows**3 / min(seconds), "seconds": seconds}
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = _times(lambda: target.copy_(source), device)
    found["copy"] = {"bytes_per_second": 2 * size / min(seconds), "seconds": seconds}  # read and written
    return found


def _times(work: Any, device: str) -> list[float]:
    import torch

    def synchronize() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    for _ in range(3):
        work()
    seconds = []
    for _ in range(ROUNDS):
        synchronize()
        start = time.perf_counter()
        work()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds
