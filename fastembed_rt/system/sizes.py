"""Numbers of bytes as people read them."""

from __future__ import annotations


def readable(size: float) -> str:
    """Three or more digits in the largest decimal unit that leaves no "0.0": "999 B", "16.2 KB", "90.9 MB"."""
    if size < 1000:
        return f"{size:.0f} B"
    for unit in ("KB", "MB", "GB"):
        size /= 1000
        if size < 999.95 or unit == "GB":  # 999.95 would be written as 1000.0
            break
    return f"{size:,.1f} {unit}"
