"""What runs a model's graph: an engine of this process, or a process for each device."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..errors import IntegrityError
from ..manifest import OUTPUTS
from ..run.contract import Runner
from ..run.engine import Engine
from ..run.session import open_session

if TYPE_CHECKING:
    from .base import LoadedModel


def start(model: LoadedModel) -> Runner:
    """The engine for a model; nothing in it holds the model, since it may be another's too, and outlive it.

    Raises:
        IntegrityError: processes of devices would open other files than the model has.
        FastembedRtError: it cannot be started.
    """
    if len(model.device_ids) > 1:
        return _start_devices(model)
    opening = partial(
        open_session,
        model._files,
        model.variant,
        provider=model.provider,
        output=model._output or OUTPUTS[model.task],
        device=0 if model.provider == "cpu" else model.device_ids[0],
        longest=model._longest,
        batch_tokens=model.max_batch_tokens,
    )
    return Engine(
        lambda threads: opening(threads=threads),
        threads=model.threads,
        dim=model.manifest.dim,
        pad_token_id=model.manifest.pad_token_id,
        max_batch_tokens=model.max_batch_tokens,
        max_wait=model._max_wait,
        feeds=model._feeds,
        split=model._splitter(),
        mixed_lengths=model.manifest.padding,
        measured=model._measured,
    )


def _start_devices(model: LoadedModel) -> Runner:
    """A process for each device."""
    from ..run.devices import DeviceEngine  # only here: one device needs none of it

    identities = model._identities()
    model._files.check_unwritten(identities)
    if not model._files.in_place(identities):
        raise IntegrityError(
            f"{model.path} was moved or replaced since the model was loaded, and processes of devices open it by "
            "its path; load the model again"
        )
    variant = model.variant
    options = {
        "provider": model.provider,
        "precision": variant.precision,
        "target": variant.target,
        "threads": max(model.threads // len(model.device_ids), 1),
        "max_batch_tokens": model.max_batch_tokens,
        "check_hashes": False,  # this process checks them
        **model._limits(),
        **({"route": model._route} if model._route is not None else {}),
    }
    kind = type(model)
    return DeviceEngine(
        {
            "module": kind.__module__,
            "name": kind.__qualname__,
            "path": str(model.path),
            "options": options,
            "identities": identities,
        },
        model.device_ids,
        threads=model.threads,
        dim=model.manifest.dim,
        max_batch_tokens=model.max_batch_tokens,
        objects=model._splitter() is not None,
        mixed_lengths=model.manifest.padding,
    )
