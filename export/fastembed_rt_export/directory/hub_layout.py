"""`--layout hub`: the graph under the names that tools of the Hugging Face hub look for.

`onnx/model.onnx` is `model.onnx` itself, a second name of the same file, with the token states as a second output. It
is one file, weights inside: transformers.js and the hub's cache, whose files are links to elsewhere, take no other
without being told. Only where the weights are too large for one file, or are asked for apart, do they lie beside it,
as `onnx/model.onnx_data`.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import onnx

from fastembed_rt.manifest import EMBEDDING, RERANKING, FileRecord, record_file

from ..checkpoint.record import Checkpoint
from ..errors import InvalidInputError, UnsupportedCheckpointError
from ..gate.refusals import GRAPHS_OF_TOOLS as FOLDER
from ..graph.graph import FLOAT
from ..variants import MODEL_FILE, Built

PLAIN, HUB = LAYOUTS = ("plain", "hub")
STATES = "last_hidden_state"


def check_options(layout: str, targets: tuple[str, ...], precisions: tuple[str, ...]) -> None:
    """Raise InvalidInputError where the layout is not known or lacks the graph that it gives a second name."""
    if layout not in LAYOUTS:
        raise InvalidInputError(f"layout {layout!r} is not known; known: {', '.join(LAYOUTS)}")
    if layout == HUB and ("cpu" not in targets or "fp32" not in precisions):
        raise InvalidInputError(
            f"layout hub is about {FOLDER}/{MODEL_FILE}, the fp32 graph that any runtime takes; make it too "
            "(--target cpu --precision fp32, beside others), or leave --layout out"
        )


def check(checkpoint: Checkpoint) -> None:
    """Raise UnsupportedCheckpointError where no tool would get right vectors from the layout."""
    why, listed = None, checkpoint.config.get("architectures")
    pairs_by = str(listed[-1]) if checkpoint.task == RERANKING and listed else ""  # class of a reranker
    if checkpoint.task not in (EMBEDDING, RERANKING):
        why = f"tools run a {checkpoint.task} model on outputs of another form than its graph has"
    elif checkpoint.chat is not None:
        why = "its pairs go through a chat template, and tools join the two texts themselves"
    elif pairs_by.endswith("ForCausalLM"):
        why = "tools look for a head over the whole vocabulary in a causal language model, of which its score is left"
    elif pairs_by.endswith("ForConditionalGeneration"):
        why = "its score is of a decoder's first word, of a text that tools do not make of a pair"
    elif checkpoint.is_static:
        why = "a table of token vectors has no token states, and no config.json that tools would know it by"
    elif checkpoint.unlike_modules is not None:
        why = checkpoint.unlike_modules
    elif not checkpoint.include_prompt:
        why = "prompts are left out of its pooling, and no tool gives the graph its pooling_mask"
    if why is not None:
        raise UnsupportedCheckpointError(f"{checkpoint.name} has no layout hub: {why}; leave --layout out")


def with_states(built: Built) -> Built:
    """The portable graph with its token states (B, S, H) as another output; as it is where they are not kept."""
    if built.states is not None:
        built.graph.output(built.states, STATES, FLOAT, ("batch", "sequence", built.width))
    return built


def link(work: Path) -> tuple[FileRecord, ...]:
    """Give `model.onnx` in `work` its second name, and its weights theirs; the records."""
    folder = work / FOLDER
    folder.mkdir()
    weights = work / f"{MODEL_FILE}.data"
    if not weights.exists():
        _same(work / MODEL_FILE, folder / MODEL_FILE)
        return (record_file(work, f"{FOLDER}/{MODEL_FILE}"),)
    apart = f"{MODEL_FILE}_data"  # as tools spell it
    model = onnx.load(str(work / MODEL_FILE), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = apart
    (folder / MODEL_FILE).write_bytes(model.SerializeToString())
    _same(weights, folder / apart)
    return tuple(record_file(work, f"{FOLDER}/{name}") for name in (MODEL_FILE, apart))


def _same(file: Path, name: Path) -> None:
    """Another name of a file; a copy where the file system has no hard links."""
    try:
        os.link(file, name)
    except OSError:
        shutil.copyfile(file, name)
