"""What optimum's exporter traces of an encoder: with what it is given, and compared with the model it was traced from.

The model gets what sentence-transformers gives it and nothing else: input_ids, attention_mask, and token types where
the tokenizer makes them. Whatever else an exporter would ask for (positions, a global attention mask, boxes, the
decoder's tokens) the model makes itself, as it does in the reference.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, load

from fastembed_rt.run.batching import Ids
from fastembed_rt.run.providers import load_onnxruntime

from ..errors import UnsupportedCheckpointError, explained
from ..graph.weight import Floats
from . import padding, torch_model
from .token_types import TokenTypes

STATES = "last_hidden_state"
TASK = "feature-extraction"
AXES = {0: "batch_size", 1: "sequence_length"}
TRACED_TOKENS = 16  # of the two texts that are traced, of which the graph must not depend
LIKE = "bert"  # how what optimum has no row for is traced: token ids and masks in, states out
# Why what fails does: a better reason than the error that comes of it.
REASONS = {
    "canine": "it reads characters, not the tokens of a vocabulary",
    "fnet": "it mixes tokens by a Fourier transform",
    "led": "it pads a text to a multiple of its attention window, which a trace keeps as it was",
    "longformer": "it pads a text to a multiple of its attention window, which a trace keeps as it was; leave "
    "--exporter out, there is a builder for it",
    "longt5": "it cuts a text into blocks of tokens, whose number a trace keeps",
    "mamba": "it goes token by token, whose number a trace keeps",
    "mega": "it mixes tokens by a Fourier transform",
    "rwkv": "it goes token by token, whose number a trace keeps",
}


@dataclass(frozen=True)
class Trace:
    """A traced encoder: input_ids and attention_mask -> last_hidden_state."""

    model: ModelProto
    types: TokenTypes  # of the tokens of a text, where it takes any
    change: float  # of a text's states by padding, in the reference

    @property
    def padding(self) -> bool:
        """Whether padding leaves the vectors as they are."""
        return self.change <= padding.ROUNDING


def trace(directory: Path, opset: int) -> Trace:
    """Trace the checkpoint in `directory` and compare what comes of it with the model.

    Raises:
        CheckpointError: tensors of the model are missing.
        UnsupportedCheckpointError: the model does not load or run, the exporter does not trace it, or its graph has
            other states.
    """
    config = torch_model.config_of(directory)
    facts = torch_model.facts(config)
    which = f"model_type {config.model_type!r}"
    which += f" ({REASONS[config.model_type]})" if config.model_type in REASONS else ""
    with explained(f"transformers cannot load the checkpoint of {which}"):
        model = torch_model.load(directory, config)
        names, types = torch_model.given(directory, model)
        pad = int(config.pad_token_id or 0)
        rows = padding.sample(facts.positions, int(config.vocab_size), pad)
    lengths = f"texts of {len(rows[0])} to {len(rows[-1])} tokens"
    with explained(f"the model of {which} itself does not run on {' and '.join(names)} of {lengths}"):
        states = _reference(model, names, types)
        change = padding.change_by_padding(states, rows, pad, facts.positions)
        expected = [padding.alone(states, row) for row in rows]
    if expected[0].shape != (len(rows[0]), facts.hidden_size):
        raise UnsupportedCheckpointError(
            f"{which} turns {len(rows[0])} tokens into states of shape {expected[0].shape}, expected "
            f"{facts.hidden_size} numbers for each token"
        )
    with tempfile.TemporaryDirectory() as work:
        path = Path(work) / "model.onnx"
        with explained(f"optimum cannot trace {which}"):
            _export(model, config, names, types, path, opset)
        with explained(
            f"optimum's trace of {which} holds for the {TRACED_TOKENS} tokens that were traced and does not run on "
            f"{lengths}"
        ):
            ours = _run(path, types)
            apart = max(
                padding.difference(padding.alone(ours, row), found) for row, found in zip(rows, expected, strict=True)
            )
        if apart > padding.ROUNDING:
            far = f"differ by up to {apart:.1g} of the largest" if np.isfinite(apart) else "have another shape, or NaN"
            raise UnsupportedCheckpointError(
                f"optimum's trace of {which} is not the model: on {lengths} its states {far}; a trace does not hold "
                "where a model's way depends on the length or the content of a text"
            )
        return Trace(load(str(path)), types, change)


def _reference(model: Any, names: list[str], types: TokenTypes) -> padding.States:
    """The model on torch."""
    import torch

    def states(ids: Ids, mask: Ids) -> Floats:
        feeds = _feeds(ids, mask, types)
        with torch.inference_mode():
            found = model(**{name: torch.from_numpy(feeds[name]) for name in names})[STATES]
        return np.asarray(found.float().numpy())

    return states


def _feeds(ids: Ids, mask: Ids, types: TokenTypes) -> dict[str, Ids]:
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": types(mask)}


def _export(model: Any, config: Any, names: list[str], types: TokenTypes, path: Path, opset: int) -> None:
    """Let optimum write its trace of the model to `path`."""
    import torch
    from optimum.exporters.onnx.convert import export
    from optimum.exporters.tasks import TasksManager

    rows = TasksManager._SUPPORTED_MODEL_TYPE  # its functions raise where there is none
    spelled = (config.model_type, config.model_type.replace("_", "-"))
    known = next((name for name in spelled if TASK in rows.get(name, {}).get("onnx", {})), LIKE)
    made = TasksManager.get_exporter_config_constructor(
        "onnx", task=TASK, model_type=known, library_name="transformers"
    )(config)
    kind = type(made)
    shapes = {"batch_size": 2, "sequence_length": TRACED_TOKENS}

    def example(self: Any, framework: str = "pt", **_: Any) -> dict[str, Any]:
        ids = torch.arange(2 * TRACED_TOKENS).reshape(2, TRACED_TOKENS) % config.vocab_size
        feeds = _feeds(ids.numpy(), np.ones_like(ids.numpy()), types)
        return {name: torch.from_numpy(feeds[name]) if framework == "pt" else feeds[name] for name in self.inputs}

    changes = {
        "inputs": property(lambda _: dict.fromkeys(names, AXES)),
        "outputs": property(lambda _: {STATES: AXES}),
        "generate_dummy_inputs": example,
    }
    made.__class__ = type(kind.__name__, (kind,), changes)
    model.config.use_cache = False
    with _quiet():
        export(model, config=made, output=path, opset=opset, input_shapes=shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch from printing its whole graph to stdout when it cannot export an operator."""
    import torch

    kept = getattr(torch._C, "_jit_onnx_log", None)
    if kept is None:
        yield
        return
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = kept


def _run(path: Path, types: TokenTypes) -> padding.States:
    """The traced graph in onnxruntime."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def states(ids: Ids, mask: Ids) -> Floats:
        feeds = _feeds(ids, mask, types)
        (found,) = session.run([STATES], {name: feeds[name] for name in names})
        return np.asarray(found)

    return states
