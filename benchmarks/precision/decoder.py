"""A checkpoint with random weights for the comparison, of the shape of Qwen3-Embedding-0.6B or EmbeddingGemma-300M.

python -m benchmarks.precision.decoder FOLDER [--shape embeddinggemma-300m] [--data DIR]

make bench BENCH_CHECKPOINT=FOLDER BENCH_MODEL=FOLDER-onnx BENCH_EXPORT='--precision fp32,bf16,int8 --no-verify' \\
    BENCH='--contenders st-torch,st-torch-bf16,st-openvino,llama-cpp-q8,rt-fp32,rt-bf16,rt-int8 --workloads mixed-96'

Speeds are those of the real weights; cosines are not. 1.2 or 0.6 GB, and the exports as much again and more.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..data.workloads import data_folder
from ..errors import BenchmarkError
from .export_cost import DECODER, random_decoder, write_random
from .int8 import real_texts

MAX_LENGTH = 512
GEMMA: Mapping[str, Any] = {
    "model_type": "gemma3_text",
    "architectures": ["Gemma3TextModel"],
    "hidden_size": 768,
    "num_hidden_layers": 24,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "intermediate_size": 1152,
    "vocab_size": 262_144,
    "max_position_embeddings": 2048,
    "sliding_window": 512,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 4,
    "rope_theta": 1_000_000,
    "rope_local_base_freq": 10_000,
    "use_bidirectional_attention": True,
    "hidden_activation": "gelu_pytorch_tanh",
}
SHAPES: Mapping[str, Mapping[str, Any]] = {"qwen3-embedding-0.6b": DECODER, "embeddinggemma-300m": GEMMA}
DENSE = {"embeddinggemma-300m": (3072, 768)}  # layers behind the pooling: their widths


def write(
    folder: Path,
    texts: Sequence[str],
    config: dict[str, Any] | None = None,
    shape: str = "qwen3-embedding-0.6b",
    dense: Sequence[int] | None = None,
) -> Path:
    """Write the checkpoint with what sentence-transformers reads; `config` and `dense` change some of its sizes."""
    random_decoder(folder, texts, {**SHAPES[shape], **(config or {})})
    width = json.loads((folder / "config.json").read_text(encoding="utf-8"))["hidden_size"]
    decoder = SHAPES[shape] is DECODER  # last token; the other attends in both directions and takes the mean
    files: dict[str, Any] = {
        "sentence_bert_config.json": {"max_seq_length": MAX_LENGTH, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_lasttoken": decoder,
            "pooling_mode_cls_token": False,
            "pooling_mode_mean_tokens": not decoder,
        },
    }
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    ends = [width, *(DENSE.get(shape, ()) if dense is None else dense)]
    for inputs, outputs in pairwise(ends):
        path = f"{len(modules)}_Dense"
        modules.append((path, "Dense"))
        files[f"{path}/config.json"] = {
            "in_features": inputs,
            "out_features": outputs,
            "bias": False,
            "activation_function": "torch.nn.modules.linear.Identity",
        }
    modules.append((f"{len(modules)}_Normalize", "Normalize"))
    files["modules.json"] = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (path, kind) in enumerate(modules)
    ]
    for path, _ in modules[1:]:
        (folder / path).mkdir()
    for name, body in files.items():
        (folder / name).write_text(json.dumps(body), encoding="utf-8")
        if "out_features" in body:
            weights = (folder / name).parent / "model.safetensors"
            write_random(weights, {"linear.weight": (body["out_features"], body["in_features"])})
    return folder


def main(words: Sequence[str] | None = None) -> int:
    """Write it; 0 done, 2 wrong data or a folder that is there."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="qwen3-embedding-0.6b")
    parser.add_argument("--data", help="folder with texts/, for the tokenizer")
    args = parser.parse_args(words)
    try:
        if args.folder.exists():
            raise BenchmarkError(f"{args.folder} exists")
        write(args.folder, real_texts(data_folder(args.data), 2000), shape=args.shape)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
