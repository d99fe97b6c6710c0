"""jina-embeddings-v5: Qwen3, or EuroBERT where it is no decoder, with a LoRA of peft for each task in a folder.

Its own code takes the last token's state, normalizes it, and refuses texts without a task. Files are written as
sentence-transformers has the same; its adapters are merged as those of any checkpoint with several.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import UnsupportedCheckpointError
from ..files import read_json
from . import jina
from .routed import Chosen

MODEL_TYPE = "jina_embeddings_v5"
_OWN_KEYS = ("auto_map", "task_names", "is_decoder")
_CHAIN = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))


def is_own(root: Path) -> bool:
    """Whether the checkpoint in `root` is of that code: its transformer alone in modules.json, or none."""
    config = root / "config.json"
    if not config.is_file() or read_json(config).get("model_type") != MODEL_TYPE:
        return False
    entries = jina.entries(root)
    return all(jina.is_module(str(entry.get("type"))) and not entry.get("path") for entry in entries)


def checked(root: Path, names: Chosen, checkpoint: str) -> Chosen:
    """The adapters that were asked for, or that of the default task.

    Raises:
        UnsupportedCheckpointError: there is none.
    """
    if names:
        return names
    default = jina.default_task(root)
    if default is not None:
        return {"": default}
    known = ", ".join(map(str, read_json(root / "config.json").get("task_names") or ())) or "none that it names"
    raise UnsupportedCheckpointError(
        f"{checkpoint} takes no text without a task, as its own code has it; name the task's adapter with --adapter: "
        f"{known}"
    )


def write(root: Path, place: Path) -> None:
    """Into the directory `place`, beside links to the other files: config.json and modules as libraries have them."""
    config = read_json(root / "config.json")
    encoder = config.get("is_decoder") is False
    made: dict[str, Any] = {key: value for key, value in config.items() if key not in _OWN_KEYS}
    made["model_type"] = "eurobert" if encoder else "qwen3"
    made["architectures"] = ["EuroBertModel" if encoder else "Qwen3Model"]
    width = made.get("hidden_size")
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
    modules = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(_CHAIN)
    ]
    for name, body in (("config.json", made), ("modules.json", modules), ("1_Pooling/config.json", pooling)):
        file = place / name
        file.unlink(missing_ok=True)  # it may be a link
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(body), encoding="utf-8")
    jina.write_settings(root, place)
