"""`encode` without what is compiled: a model whose Rust tokenizer and onnxruntime session are stand-ins.

The stand-ins answer with objects made beforehand, so what is left of a call is this package's Python and its use of
numpy. `python -m benchmarks.inside.python_path MODEL_DIR CASE CALLS` makes so many calls, for valgrind to count
(instructions.py).
"""

from __future__ import annotations

import gc
import sys
import types
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np

DIM = 384
TOKENS = 12  # of every text, special tokens included: a question
SEVERAL = 32
WARM_CALLS = 50  # until the interpreter has specialized its bytecode
INPUTS = {
    "cpu": ("input_ids", "position_ids", "unpack", "pack", "token_mask"),
    "portable": ("input_ids", "attention_mask"),
}


class _Encoding:
    """What the Rust tokenizer gives for one text."""

    ids = tuple(range(1000, 1000 + TOKENS))
    overflowing = ()


class _Tokenizer:
    """Gives the same encoding for any text."""

    def __init__(self) -> None:
        self._encoding = _Encoding()
        self._ready = {count: [self._encoding] * count for count in (1, SEVERAL)}

    @classmethod
    def from_buffer(cls, _: bytes) -> _Tokenizer:
        return cls()

    def num_special_tokens_to_add(self, _: bool) -> int:
        return 2

    def no_padding(self) -> None: ...

    def no_truncation(self) -> None: ...

    def enable_truncation(self, _: int, *, direction: str) -> None: ...

    def encode(self, _: str) -> _Encoding:
        return self._encoding

    def encode_batch_fast(self, texts: Sequence[str]) -> list[_Encoding]:
        return self._ready[len(texts)]


class _InferenceSession:
    """Takes any feeds and gives vectors that were there before; the file's name tells the graph's inputs."""

    def __init__(self, path: str, **_: Any) -> None:
        self._inputs = [types.SimpleNamespace(name=name) for name in INPUTS[Path(path).stem]]
        self._answers = {count: [np.ones((count, DIM), np.float32)] for count in (1, SEVERAL)}

    def get_inputs(self) -> list[types.SimpleNamespace]:
        return self._inputs

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def run(self, _: list[str], feeds: dict[str, Any]) -> list[Any]:
        rows = feeds["unpack"] if "unpack" in feeds else feeds["input_ids"]
        return self._answers[len(rows)]


def stand_in_modules() -> dict[str, types.ModuleType]:
    """Modules to import instead of tokenizers and onnxruntime, by name."""
    tokenizers, onnxruntime = types.ModuleType("tokenizers"), types.ModuleType("onnxruntime")
    vars(tokenizers)["Tokenizer"] = _Tokenizer
    onnxruntime.__spec__ = ModuleSpec("onnxruntime", None)
    vars(onnxruntime).update(
        __version__="1.32.0",
        SessionOptions=lambda: types.SimpleNamespace(add_session_config_entry=lambda *_: None),
        GraphOptimizationLevel=types.SimpleNamespace(ORT_ENABLE_BASIC=1),
        ExecutionMode=types.SimpleNamespace(ORT_SEQUENTIAL=0),
        InferenceSession=_InferenceSession,
        get_available_providers=lambda: ["CPUExecutionProvider"],
    )
    return {"tokenizers": tokenizers, "onnxruntime": onnxruntime}


def write_model(directory: Path) -> Path:
    """A model directory with a graph for each row of INPUTS, whose files hold nothing."""
    from fastembed_rt.manifest import Manifest, Source, Variant, record_file

    for name in ("tokenizer.json", *(f"{target}.onnx" for target in INPUTS)):
        (directory / name).write_bytes(b"")
    Manifest(
        source=Source(checkpoint="stand-in", model_type="bert", sha256="0" * 64),
        dim=DIM,
        pooling=("mean",),
        normalize=True,
        max_length=256,
        max_positions=512,
        prompts={"query": "query: "},
        tokenizer=record_file(directory, "tokenizer.json"),
        variants=tuple(
            Variant(
                graph=record_file(directory, f"{target}.onnx"), target=target, precision="fp32", opset=23, inputs=inputs
            )
            for target, inputs in INPUTS.items()
        ),
        default_variant="portable.onnx",
    ).write(directory)
    return directory


TEXT = "how tall is the tower that was built in the year of the fair"
CASES: dict[str, tuple[str, Callable[[Any], object]]] = {  # name -> target, call
    "one text": ("cpu", lambda model: model.encode(TEXT)),
    "one text, padded graph": ("portable", lambda model: model.encode(TEXT)),
    "one query with its prompt": ("cpu", lambda model: model.encode_query(TEXT)),
    "32 texts": ("cpu", lambda model: model.encode([TEXT] * SEVERAL)),
}


def load(target: str, directory: Path) -> Any:
    """A model with stand-ins that are there before its first import of the real ones.

    Args:
        target: which row of INPUTS its graph takes.
        directory: what `write_model` wrote.
    """
    sys.modules.update(stand_in_modules())
    from fastembed_rt.models.embedding import EmbeddingModel

    # No hashing: it has a thread of its own, and what two threads do is never the same twice.
    return EmbeddingModel(directory, target=target, threads=1, check_hashes=False)


def main() -> None:
    """Make the calls that valgrind counts."""
    directory, case, calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    target, call = CASES[case]
    model = load(target, directory)
    for _ in range(WARM_CALLS):
        call(model)
    gc.collect()
    gc.disable()  # when a collection falls due depends on what was allocated before
    for _ in range(calls):
        call(model)


if __name__ == "__main__":
    main()
