"""Sizes as people read them."""

from __future__ import annotations

import pytest

from fastembed_rt.system.sizes import readable


@pytest.mark.parametrize(
    ("size", "written"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (999, "999 B"),
        (1000, "1.0 KB"),
        (16_240, "16.2 KB"),
        (999_949, "999.9 KB"),
        (999_950, "1.0 MB"),  # and not 1000.0 KB
        (90_868_376, "90.9 MB"),
        (2_270_000_000, "2.3 GB"),
        (1_234_000_000_000, "1,234.0 GB"),
    ],
)
def test_the_unit_leaves_no_zero_and_no_four_digits(size: int, written: str) -> None:
    assert readable(size) == written
