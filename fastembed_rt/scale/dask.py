"""Dask DataFrame: map_partitions, a model in each worker process, shared by the worker's threads."""

from __future__ import annotations

from typing import Any

from .embed import Embed
from .required import required
from .sending import Archive, Sent, packed


def apply(frame: Any, embed: Embed) -> Any:
    """A dask DataFrame with the column of an Embed, an ArrowDtype, which to_parquet keeps.

    The threads of a model are those of its worker (`LocalCluster(threads_per_worker=)`): tasks of one worker share it.
    A partition is one call; a worker that dies is started again by its nanny, and its partitions are done again.
    """
    made = embed if embed._plan.lists is not None else embed.replaced(lists="fixed")
    return frame.map_partitions(made, meta=made(frame._meta))


def send(client: Any, embed: Embed) -> Embed:
    """Unpack the model's files on every machine of a cluster, and on those that join, where no path or hub does."""
    archive = packed(embed)
    client.register_plugin(plugin(archive), name=f"fastembed-rt-{archive.key}")
    return embed.replaced(find=Sent(archive.key))


def plugin(archive: Archive) -> Any:
    """A WorkerPlugin that unpacks a model when a worker starts."""
    base: Any = required("distributed", "dask").WorkerPlugin

    class Unpack(base):  # type: ignore[misc]
        def setup(self, worker: Any) -> None:
            archive.unpack()

    return Unpack()
