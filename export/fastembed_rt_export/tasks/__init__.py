"""What a checkpoint is for, told from its files, and the row of functions that exports it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastembed_rt.errors import FastembedRtError
from fastembed_rt.manifest import EMBEDDING, LATE_INTERACTION, RERANKING, SPARSE, TASKS

from ..checkpoint import read as checkpoints
from ..checkpoint.read import Checkpoint, Overrides
from ..checkpoint.routes import ROUTERS, read_routes
from ..errors import InvalidInputError, UnsupportedCheckpointError
from ..files import read_json, refuse_adapter
from ..gate.parity import INT8_MIN_COSINE
from ..gate.reference import applied_adapter
from ..gate.report import Refuse, raised
from ..graph.target import Target
from ..tensors import WEIGHT_FILES
from ..variants import Built, Quantizing, TokenStates
from . import embedding, late_interaction, reranking, sparse
from .late_layouts import is_stanfords
from .task import Say, Task

AUTO = "auto"
ROWS: dict[str, Task] = {
    EMBEDDING: embedding.TASK,
    RERANKING: reranking.TASK,
    SPARSE: sparse.TASK,
    LATE_INTERACTION: late_interaction.TASK,
}
# The classes that sentence-transformers writes into config_sentence_transformers.json.
_CLASSES = {
    "SentenceTransformer": EMBEDDING,
    "CrossEncoder": RERANKING,
    "SparseEncoder": SPARSE,
    "MultiVectorEncoder": LATE_INTERACTION,
    "ColBERT": LATE_INTERACTION,  # PyLate
}


def detect(root: Path) -> str:
    """The task of the checkpoint in `root`, told by what its author's library wrote beside the weights."""
    if (root / "modules.json").is_file():
        kinds = _module_kinds(root / "modules.json")
        if {"SpladePooling", "SparseStaticEmbedding"} & {*kinds, *_routed_kinds(root, kinds)}:
            return SPARSE
        if "MultiVectorMask" in kinds or any(kind.startswith("pylate.") for kind in kinds):
            return LATE_INTERACTION
        if "LogitScore" in kinds:
            return RERANKING
        return _CLASSES.get(str(_beside(root, "config_sentence_transformers.json").get("model_type")), EMBEDDING)
    named = [str(name) for name in _beside(root, "config.json").get("architectures") or ()]
    if is_stanfords(root, named):
        return LATE_INTERACTION
    return RERANKING if any(name.endswith("ForSequenceClassification") for name in named) else EMBEDDING


def check_roles(root: Path, name: str, task: str = AUTO) -> None:
    """Raise UnsupportedCheckpointError where queries and documents cannot have an encoder each."""
    task = detect(root) if task == AUTO else task
    if task in (RERANKING, LATE_INTERACTION):
        raise UnsupportedCheckpointError(
            f"{name} is for {task.replace('_', ' ')}, and adapters for each role are for embedding and sparse models; "
            "name one adapter"
        )


def load(root: Path, name: str, revision: str | None = None, *, task: str = AUTO, exporter: str = "auto") -> Checkpoint:
    """Read the checkpoint in directory `root` for `task`; see checkpoint.load.

    Raises:
        InvalidInputError: a task that does not exist.
    """
    if task not in (AUTO, *TASKS):
        raise InvalidInputError(f"task {task!r} is not known; known: {', '.join((AUTO, *TASKS))}")
    refuse_adapter(root, WEIGHT_FILES, [])
    return ROWS[detect(root) if task == AUTO else task].load(root, name, revision, exporter)


def override(checkpoint: Checkpoint, wanted: Overrides) -> Checkpoint:
    """The checkpoint with the user's word instead of its own, recorded; see checkpoint.override.

    Raises:
        InvalidInputError: an option that the task does not have.
    """
    allowed = ROWS[checkpoint.task].overrides
    foreign = [name for name, value in vars(wanted).items() if value is not None and name not in allowed]
    if foreign:
        option = foreign[0].replace("_", "-")
        raise InvalidInputError(f"--{option} is not for {checkpoint.task}, which {checkpoint.name} is; leave it out")
    return checkpoints.override(checkpoint, wanted)


def build(checkpoint: Checkpoint, target: Target, opset: int) -> Built:
    """Graph for one target, heads included.

    Raises:
        CheckpointError: tensors that do not fit the config.
        InvalidInputError: what the user wants against the checkpoint cannot be built.
    """
    return ROWS[checkpoint.task].build(checkpoint, target, opset)


def facts(checkpoint: Checkpoint, work: Path) -> Mapping[str, Any]:
    """Fields of the manifest that the task decides; `work` has the tokenizer."""
    return ROWS[checkpoint.task].facts(checkpoint, work)


def is_table(checkpoint: Checkpoint) -> bool:
    """Whether its graph is a lookup, the same for all targets and precisions."""
    return sparse.is_table(checkpoint)


def quantizing(checkpoint: Checkpoint) -> Quantizing:
    """What int8 calibrates on and how it is measured."""
    return ROWS[checkpoint.task].quantizing(checkpoint)


def token_states(checkpoint: Checkpoint) -> TokenStates:
    """How graphs of token states are made.

    Raises:
        InvalidInputError: a task that has none.
    """
    row = ROWS[checkpoint.task]
    if row.tokens is None:
        raise InvalidInputError(
            f"--tokens is for embedding, and {checkpoint.name} is for {checkpoint.task}; leave it out"
        )
    return row.tokens(checkpoint)


def verify(
    directory: Path,
    checkpoint: Checkpoint,
    say: Say = lambda _: None,
    *,
    min_cosine: float = INT8_MIN_COSINE,
    refuse: Refuse = raised,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Parity report of a model directory against its checkpoint; see verify.verify."""
    report = ROWS[checkpoint.task].verify(
        directory, checkpoint, say, min_cosine=min_cosine, refuse=refuse, show_progress=show_progress
    )
    if any(one.adapter is not None or one.translated for one in (checkpoint, *checkpoint.routes.values())):
        report = {**report, "reference": f"{report['reference']}, {applied_adapter(checkpoint)}"}
    return report


def _module_kinds(path: Path) -> list[str]:
    """Class names of modules.json: the last part, and the whole of those that are not sentence-transformers' own."""
    try:
        kinds = [str(entry["type"]) for entry in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return []  # checkpoint.load says what is wrong with it
    return [kind.rpartition(".")[2] if kind.startswith("sentence_transformers.") else kind for kind in kinds]


def _routed_kinds(root: Path, kinds: list[str]) -> list[str]:
    """Class names of the modules in a Router, if there is one."""
    if not set(kinds) & set(ROUTERS):
        return []
    try:
        routes = read_routes(root)
    except FastembedRtError:
        return []  # checkpoint.load says what is wrong with it
    chains = [routes.default, *(chain for _, chain in (routes.others or {}).values())]
    return [kind for chain in chains for kind, _ in chain]


def _beside(root: Path, name: str) -> dict[str, Any]:
    return read_json(root / name) if (root / name).is_file() else {}
