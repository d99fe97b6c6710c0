"""Threads and GPUs that an engine grants to one of its processes. Imports none: what runs it is there already.

Asked in the worker and not before, since a driver on a laptop says nothing of a node with 96 cores.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from .. import machine

VARIABLE = "OMP_NUM_THREADS"  # what engines without a word of their own set for their workers


def threads() -> int:
    """Threads that a model in this process may run: what the engine grants, and never more than there are CPUs.

    The first that says something: Ray's CPUs of this actor or task, Spark's CPUs of this task, the threads of this Dask
    worker, OMP_NUM_THREADS. Else CPU affinity and container quota.
    """
    there = machine.available_threads()
    for library, reader in READERS.items():
        module = sys.modules.get(library)
        found = None if module is None else reader(module)
        if found is not None:
            return max(1, min(int(found), there))
    said = os.environ.get(VARIABLE, "").partition(",")[0].strip()  # a list is of nested levels
    return max(1, min(int(said), there)) if said.isdigit() and int(said) > 0 else there


def _ray(ray: Any) -> float | None:
    """CPUs of this actor or task; one where it asked for less than one."""
    if not ray.is_initialized():
        return None
    context = ray.get_runtime_context()
    if context.get_actor_id() is None and context.get_task_id() is None:  # the driver
        return None
    cpus: float = context.get_assigned_resources().get("CPU", 1.0)
    return cpus


def _spark(pyspark: Any) -> int | None:
    """spark.task.cpus of the task that runs here, or what its resource profile says."""
    context = getattr(pyspark, "TaskContext", None)
    task = None if context is None else context.get()
    cpus: int | None = None if task is None else task.cpus()
    return cpus


def _dask(distributed: Any) -> int | None:
    """Threads of the worker: its tasks share one model, whose threads work for all of them."""
    try:
        worker = distributed.get_worker()
    except ValueError:
        return None
    nthreads: int = worker.state.nthreads
    return nthreads


READERS = {"ray": _ray, "pyspark": _spark, "distributed": _dask}


def devices() -> list[int] | None:
    """Numbers of the GPUs that a task of Spark has been given, which leaves it to the task to take those; else None.

    Other engines hide all other GPUs from a process, so that its first one is the right one.
    """
    context = getattr(sys.modules.get("pyspark"), "TaskContext", None)
    task = None if context is None else context.get()
    found = None if task is None else task.resources().get("gpu")
    return None if found is None else [int(address) for address in found.addresses]
