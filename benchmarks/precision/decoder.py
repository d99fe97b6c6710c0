"""A checkpoint of Qwen3-Embedding-0.6B's shape for the comparison: random weights, last-token pooling, normalized.

python -m benchmarks.precision.decoder FOLDER [--data DIR]

make bench BENCH_CHECKPOINT=FOLDER BENCH_MODEL=FOLDER-onnx \\
    BENCH='--contenders st-torch,st-torch-bf16,st-openvino,llama-cpp-q8,rt-fp32,rt-int8'

Speeds are those of the real weights; cosines are not. 1.2 GB, and the exports as much again and more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.workloads import data_folder
from ..errors import BenchmarkError
from .export_cost import random_decoder
from .int8 import real_texts

MAX_LENGTH = 512
MODULES = (("0", "", "Transformer"), ("1", "1_Pooling", "Pooling"), ("2", "2_Normalize", "Normalize"))


def write(folder: Path, texts: Sequence[str], config: dict[str, Any] | None = None) -> Path:
    """Write the checkpoint with what sentence-transformers reads; `config` changes some of its settings."""
    random_decoder(folder, texts, config)
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    modules = [
        {"idx": int(name), "name": name, "path": path, "type": f"sentence_transformers.models.{kind}"}
        for name, path, kind in MODULES
    ]
    pooling = {
        "word_embedding_dimension": width,
        "pooling_mode_lasttoken": True,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": False,
    }
    for name in ("1_Pooling", "2_Normalize"):
        (folder / name).mkdir()
    for name, body in (
        ("modules.json", modules),
        ("sentence_bert_config.json", {"max_seq_length": MAX_LENGTH, "do_lower_case": False}),
        ("1_Pooling/config.json", pooling),
    ):
        (folder / name).write_text(json.dumps(body), encoding="utf-8")
    return folder


def main(words: Sequence[str] | None = None) -> int:
    """Write it; 0 done, 2 wrong data or a folder that is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", help="folder with texts/, for the tokenizer")
    args = parser.parse_args(words)
    try:
        if args.folder.exists():
            raise BenchmarkError(f"{args.folder} exists")
        write(args.folder, real_texts(data_folder(args.data), 2000))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
