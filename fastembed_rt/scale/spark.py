"""Spark: mapInArrow, a model in each Python worker. No barrier: tasks run, fail and are tried again one by one."""

from __future__ import annotations

import atexit
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .embed import Embed
from .required import required
from .sending import MODEL, packed


@dataclass(frozen=True)
class Artifact:
    """For `find=`: a packed model that Spark has brought and unpacked on the executor."""

    name: str

    def __call__(self) -> Path:
        """Its directory."""
        files = required("pyspark", "spark").SparkFiles
        return Path(files.get(self.name)) / MODEL


def send(session: Any, embed: Embed) -> Embed:
    """Have Spark bring the model's files to its executors (`addArtifacts`), where no path or hub does."""
    archive = packed(embed)
    name = f"fastembed-rt-{archive.key}"
    # The driver hands it out as long as it lives: executors may join late.
    scratch = tempfile.TemporaryDirectory(prefix="fastembed-rt-", ignore_cleanup_errors=True)
    atexit.register(scratch.cleanup)
    file = Path(scratch.name) / f"{name}.tar"
    file.write_bytes(archive.content)
    session.addArtifacts(f"{file}#{name}", archive=True)
    return embed.replaced(find=Artifact(name))


def apply(frame: Any, embed: Embed, *, profile: Any = None) -> Any:
    """A DataFrame with the column of an Embed: an array of floats, or what its task gives.

    A task's threads are its CPUs (spark.task.cpus, or the profile's); each task that runs beside it on an executor is a
    process with its own model. Rows a batch: spark.sql.execution.arrow.maxRecordsPerBatch.

    Args:
        frame: with the columns of texts.
        embed: what to add. Its lists are plain ones: Spark has no others.
        profile: a ResourceProfile, for a stage with other CPUs or with GPUs.
    """
    types = required("pyspark.sql.types", "spark")
    from_arrow = required("pyspark.sql.pandas.types", "spark").from_arrow_type
    listed = embed.replaced(lists="list")
    added = types.StructField(embed.into, from_arrow(listed.arrow_type))
    schema = types.StructType([*frame.schema.fields, added])
    options = {} if profile is None else {"profile": profile}
    return frame.mapInArrow(listed.over, schema, **options)
