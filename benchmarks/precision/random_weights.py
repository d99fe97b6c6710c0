"""A checkpoint with random weights for the comparison, of the shape of a large or long model.

python -m benchmarks.precision.random_weights FOLDER [--shape embeddinggemma-300m] [--data DIR]

Qwen3-Embedding-0.6B or EmbeddingGemma-300M, compared on 96 texts:

make bench BENCH_CHECKPOINT=FOLDER BENCH_MODEL=FOLDER-onnx BENCH_EXPORT='--precision fp32,bf16,int8 --no-verify' \\
    BENCH='--contenders st-torch,st-torch-bf16,st-openvino,llama-cpp-q8,rt-fp32,rt-bf16,rt-int8 --workloads mixed-96'

ModernBERT-base, on texts of 2,048 and 8,192 tokens (a quarter of an hour for a round on two cores, most of it torch's
float32, which the others are compared with): the same with

    BENCH='--parts lengths --contenders st-torch-bf16,rt-bf16,rt-int8 --workloads length-2048,length-8192'

DeBERTa-v3-base (--shape deberta-v3-base), on 96 texts: the same with

    BENCH='--parts throughput,latency --contenders st-torch,st-torch-bf16,st-openvino,rt-fp32,rt-bf16,rt-int8 \\
        --workloads mixed-96 --rounds 2'

Speeds are those of the real weights; cosines are not. 0.3 to 1.2 GB, and the exports as much again and more.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ..data.workloads import data_folder
from ..errors import BenchmarkError
from .int8 import real_texts

PIECES = 16_000  # of the tokenizer; ids above stay unused
SPREAD = 0.03  # standard deviation of the random weights


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What a checkpoint is made of, but for its numbers."""

    config: Mapping[str, Any]
    norms: tuple[str, ...] = ()  # of a decoder's layer, beside those of queries and keys
    pooling: str
    max_length: int = 512
    gain: float = 1.0  # as the norms have it in the checkpoint
    dense: tuple[int, ...] = ()  # widths of the layers behind the pooling


QWEN3 = Shape(
    config={
        "model_type": "qwen3",
        "architectures": ["Qwen3Model"],
        "hidden_size": 1024,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "intermediate_size": 3072,
        "vocab_size": 151_669,
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "hidden_act": "silu",
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": True,
    },
    norms=("input_layernorm", "post_attention_layernorm"),
    pooling="lasttoken",
)
GEMMA = Shape(
    config={
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
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000,
        "rope_local_base_freq": 10_000,
        "use_bidirectional_attention": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": True,
    },
    norms=tuple(f"{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")),
    pooling="mean",
    gain=0.0,  # Gemma adds 1 to it
    dense=(3072, 768),
)
MODERNBERT = Shape(
    config={
        "model_type": "modernbert",
        "architectures": ["ModernBertModel"],
        "hidden_size": 768,
        "num_hidden_layers": 22,
        "num_attention_heads": 12,
        "intermediate_size": 1152,
        "vocab_size": 50_368,
        "max_position_embeddings": 8192,
        "local_attention": 128,
        "global_attn_every_n_layers": 3,
        "global_rope_theta": 160_000,
        "local_rope_theta": 10_000,
        "hidden_activation": "gelu",
        "norm_eps": 1e-5,
        "norm_bias": False,
        "attention_bias": False,
        "mlp_bias": False,
        "pad_token_id": 0,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "cls_token_id": 0,
        "sep_token_id": 0,
        "torch_dtype": "bfloat16",
    },
    pooling="cls",
    max_length=8192,
)
DEBERTA = Shape(
    config={
        "model_type": "deberta-v2",
        "architectures": ["DebertaV2Model"],
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 128_100,
        "type_vocab_size": 0,
        "max_position_embeddings": 512,
        "max_relative_positions": -1,
        "position_buckets": 256,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-7,
        "pad_token_id": 0,
        "torch_dtype": "bfloat16",
    },
    pooling="cls",
)
SHAPES: Mapping[str, Shape] = {
    "qwen3-embedding-0.6b": QWEN3,
    "embeddinggemma-300m": GEMMA,
    "modernbert-base": MODERNBERT,
    "deberta-v3-base": DEBERTA,
}


def write(folder: Path, texts: Sequence[str], shape: Shape = QWEN3) -> Path:
    """Write the checkpoint as sentence-transformers reads it; the tokenizer is trained on the texts."""
    _write_transformer(folder, texts, shape)
    width = shape.config["hidden_size"]
    files: dict[str, Any] = {
        "sentence_bert_config.json": {"max_seq_length": shape.max_length, "do_lower_case": False},
        "1_Pooling/config.json": {
            "word_embedding_dimension": width,
            "pooling_mode_lasttoken": shape.pooling == "lasttoken",
            "pooling_mode_cls_token": shape.pooling == "cls",
            "pooling_mode_mean_tokens": shape.pooling == "mean",
        },
    }
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    for inputs, outputs in pairwise((width, *shape.dense)):
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
            _write_random(weights, {"linear.weight": (body["out_features"], body["in_features"])}, gain=1)
    return folder


def _write_transformer(folder: Path, texts: Sequence[str], shape: Shape) -> None:
    """What transformers reads alone."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(dict(shape.config)), encoding="utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=min(PIECES, shape.config["vocab_size"]),
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    if shape.pooling == "cls":  # a token that is there in every text
        end = "<|endoftext|>"
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{end} $A {end}", special_tokens=[(end, 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<|endoftext|>",
        "model_max_length": shape.max_length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    _write_random(folder / "model.safetensors", dict(_tensors(shape)), gain=shape.gain)


def _write_random(file: Path, shapes: Mapping[str, tuple[int, ...]], *, gain: float) -> None:
    """Tensors of bfloat16 as safetensors has them: the header's length, the header, the values; biases are 0, other
    vectors `gain`."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (begin, end)}
    described = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    random = np.random.default_rng(0)
    with file.open("wb") as stream:
        stream.write(len(described).to_bytes(8, "little") + described)
        for name, shape in shapes.items():
            values = np.full(shape, 0.0 if name.endswith("bias") else gain, np.float32)
            if len(shape) > 1:
                values = random.standard_normal(shape, dtype=np.float32) * np.float32(SPREAD)
            stream.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())  # the upper half of a float32


def _tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the transformer's."""
    others = {"modernbert": _modernbert, "deberta-v2": _deberta}
    found = others.get(shape.config["model_type"])
    return found(shape.config) if found else _decoder(shape)


def _deberta(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of a DebertaV2Model."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "embeddings.word_embeddings.weight", (config["vocab_size"], width)
    yield "encoder.rel_embeddings.weight", (2 * config["position_buckets"], width)
    norms = ["embeddings.LayerNorm", "encoder.LayerNorm"]
    for k in range(config["num_hidden_layers"]):
        under = f"encoder.layer.{k}."
        for name, rows, columns in (
            ("attention.self.query_proj", width, width),
            ("attention.self.key_proj", width, width),
            ("attention.self.value_proj", width, width),
            ("attention.output.dense", width, width),
            ("intermediate.dense", inner, width),
            ("output.dense", width, inner),
        ):
            yield f"{under}{name}.weight", (rows, columns)
            yield f"{under}{name}.bias", (rows,)
        norms += [f"{under}attention.output.LayerNorm", f"{under}output.LayerNorm"]
    for name in norms:
        yield f"{name}.weight", (width,)
        yield f"{name}.bias", (width,)


def _modernbert(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of a ModernBertModel."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    yield "embeddings.tok_embeddings.weight", (config["vocab_size"], width)
    yield "embeddings.norm.weight", (width,)
    for k in range(config["num_hidden_layers"]):
        if k:  # the first layer reads what the embeddings' norm gives
            yield f"layers.{k}.attn_norm.weight", (width,)
        yield f"layers.{k}.attn.Wqkv.weight", (3 * width, width)
        yield f"layers.{k}.attn.Wo.weight", (width, width)
        yield f"layers.{k}.mlp_norm.weight", (width,)
        yield f"layers.{k}.mlp.Wi.weight", (2 * inner, width)
        yield f"layers.{k}.mlp.Wo.weight", (width, inner)
    yield "final_norm.weight", (width,)


def _decoder(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Of a Qwen3Model or a Gemma3TextModel."""
    config = shape.config
    width, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    yield "embed_tokens.weight", (config["vocab_size"], width)
    for k in range(config["num_hidden_layers"]):
        for name, rows, columns in (
            ("self_attn.q_proj", queries, width),
            ("self_attn.k_proj", keys, width),
            ("self_attn.v_proj", keys, width),
            ("self_attn.o_proj", width, queries),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ):
            yield f"layers.{k}.{name}.weight", (rows, columns)
        for name in ("self_attn.q_norm", "self_attn.k_norm"):
            yield f"layers.{k}.{name}.weight", (head,)
        for name in shape.norms:
            yield f"layers.{k}.{name}.weight", (width,)
    yield "norm.weight", (width,)


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
        write(args.folder, real_texts(data_folder(args.data), 2000), SHAPES[args.shape])
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
