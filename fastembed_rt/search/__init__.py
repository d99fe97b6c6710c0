"""Search in a folder: files -> chunks -> int8 vectors in one Parquet file -> the best chunks for a question."""

from __future__ import annotations

from .building import Built, build
from .index import Hit, Index

__all__ = ["Built", "Hit", "Index", "build"]
