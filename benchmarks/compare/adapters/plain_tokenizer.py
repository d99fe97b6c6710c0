"""For contenders that take a folder with a graph and a tokenizer, or no texts at all: those files, and token counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.server import Options

SMALL = ("config.json", "special_tokens_map.json", "tokenizer_config.json")


def onnx_folder(options: Options, folder: Path) -> None:
    """Make what an ONNX embedder loads: the exported fp32 graph beside the checkpoint's tokenizer."""
    variants = options.manifest()["variants"]
    graph = next((v for v in variants if v["precision"] == "fp32" and v["target"] == "portable"), None)
    if graph is None:
        raise ValueError("the model directory has no portable fp32 graph; export it with --precision fp32")
    for record in (graph["graph"], *graph["weights"]):
        shutil.copy(Path(options.model_dir, record["file"]), folder / record["file"])
    (folder / graph["graph"]["file"]).rename(folder / "model.onnx")
    shutil.copy(Path(options.model_dir, "tokenizer.json"), folder / "tokenizer.json")
    for name in SMALL:  # transformers 5 writes fewer of them than such embedders read
        source = Path(options.checkpoint, name)
        shutil.copy(source if source.is_file() else Path(options.model_dir, name), folder / name)
    set_limit(options, folder)


def set_limit(options: Options, folder: Path) -> None:
    """Have a folder's tokenizer_config.json say the limit that every contender has.

    ONNX embedders take `model_max_length`, which a checkpoint may leave at the size of its position table, or where
    there are both the smaller of it and `max_length`.
    """
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["model_max_length"] = options.max_length
    config.pop("max_length", None)
    file.write_text(json.dumps(config), encoding="utf-8")


def plain(file: Path, max_length: int) -> Any:
    """The tokenizer of a tokenizer.json, cut at max_length, without padding."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def counter(tokenizer: Any) -> Callable[[list[Any]], list[int]]:
    """Function from texts to tokens that are not padding."""
    return lambda texts: [sum(row.attention_mask) for row in tokenizer.encode_batch(texts)]
