"""Ray Data: a pool of actors, each with one model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .embed import Embed
from .required import required
from .sending import packed, unpacked

BATCH_SIZE = 4096  # rows: what `encode` sorts by length at a time


class Actor:
    """What an actor of the pool is made of; map_batches calls it."""

    def __init__(self, embed: Embed) -> None:
        self.embed = embed
        _ = embed.model  # while the actor starts: Ray sends it batches when it is ready

    def __call__(self, batch: Any) -> Any:
        """A pyarrow Table with its column."""
        return self.embed(batch)


@dataclass(frozen=True)
class Stored:
    """For `find=`: a packed model in Ray's object store, unpacked once a machine."""

    key: str
    reference: Any

    def __call__(self) -> Path:
        """Its directory."""
        ray = required("ray", "ray")
        return unpacked(self.key, lambda: ray.get(self.reference))


def send(embed: Embed) -> Embed:
    """Put the model's files into the object store, for nodes that have neither its directory nor the hub."""
    ray = required("ray", "ray")
    archive = packed(embed)
    return embed.replaced(find=Stored(archive.key, ray.put(archive)))


def apply(
    dataset: Any,
    embed: Embed,
    *,
    workers: int | tuple[int, int] | None = None,
    cpus: float = 1,
    gpus: float = 0,
    batch_size: int = BATCH_SIZE,
    **options: Any,
) -> Any:
    """A ray.data.Dataset with the column of an Embed, by `map_batches` over a pool of actors.

    A node that is lost takes its actor with it: Ray starts another and gives it the batch again. Work that is done
    stays done over a restart of the whole job with Ray's own CheckpointConfig.

    Args:
        dataset: with the columns of texts.
        embed: what to add; its threads are `cpus`, unless it was made with threads=.
        workers: actors, or (fewest, most); None starts with one and lets Ray add others up to its CPUs or GPUs.
            A fixed number that takes all CPUs leaves none to the reading of files.
        cpus: CPUs that Ray reserves for an actor: the threads of its model.
        gpus: GPUs, with a model of provider="cuda".
        batch_size: rows.
        **options: of `map_batches`, such as memory= or runtime_env=.
    """
    data = required("ray.data", "ray")
    if workers is None:
        pool = data.ActorPoolStrategy(min_size=1)
    elif isinstance(workers, int):
        pool = data.ActorPoolStrategy(size=workers)
    else:
        pool = data.ActorPoolStrategy(min_size=workers[0], max_size=workers[1])
    return dataset.map_batches(
        Actor,
        fn_constructor_args=(embed,),
        compute=pool,
        batch_format="pyarrow",
        batch_size=batch_size,
        num_cpus=cpus,
        num_gpus=gpus or None,
        udf_modifying_row_count=False,
        **options,
    )
