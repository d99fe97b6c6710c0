"""Models in engines that run over many machines: Ray, Spark, Dask, Daft, datasets, polars, Beam, Flink.

`Embed` is what all of them call, and knows none of them; each module beside it imports its own engine, when it is used.
"""

from __future__ import annotations

from .embed import Embed

__all__ = ["Embed"]
