"""Daft: a class UDF (`@daft.cls`), on its own runner or on Ray."""

from __future__ import annotations

from typing import Any

from .. import machine
from .embed import Embed
from .required import required

BATCH_SIZE = 4096  # rows: what `encode` sorts by length at a time


def expression(
    embed: Embed,
    *,
    max_concurrency: int | None = None,
    use_process: bool | None = None,
    cpus: float | None = None,
    gpus: float = 0,
    batch_size: int = BATCH_SIZE,
    **options: Any,
) -> Any:
    """The column of an Embed as an expression: a fixed-size list of floats, or what its task gives.

    Args:
        embed: what to add. Without threads= its model has, on Daft's own runner, this machine's CPUs divided by
            `max_concurrency`; on Ray, the CPUs that Ray grants.
        max_concurrency: instances that run at once.
        use_process: each in a process of its own.
        cpus: of an instance.
        gpus: of an instance, with a model of provider="cuda".
        batch_size: rows.
        **options: of `daft.cls`, such as max_retries= or ray_options=.
    """
    daft = required("daft", "daft")
    if embed.threads is None and daft.runners.get_or_infer_runner_type() == "native":
        embed = embed.replaced(threads=max(1, machine.available_threads() // (max_concurrency or 1)))
    kind = daft.DataType.from_arrow_type(embed.arrow_type)

    class Rows:
        def __init__(self, embed: Embed) -> None:
            self.embed = embed

        @daft.method.batch(return_dtype=kind, batch_size=batch_size)  # type: ignore[untyped-decorator]
        def __call__(self, *columns: Any) -> Any:
            return self.embed.arrow(*(column.to_arrow() for column in columns))

    rows = daft.cls(
        Rows,
        cpus=cpus,
        gpus=gpus,
        max_concurrency=max_concurrency,
        use_process=use_process,
        name_override=embed.into,
        **options,
    )
    return rows(embed)(*(daft.col(name) for name in embed.columns)).alias(embed.into)


def apply(frame: Any, embed: Embed, **options: Any) -> Any:
    """A DataFrame with the column of an Embed; options as of `expression`."""
    return frame.with_column(embed.into, expression(embed, **options))
