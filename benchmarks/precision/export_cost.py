"""What an INT8 export costs: seconds of calibration and in all, peak memory in shares of the checkpoint's bytes.

    python -m benchmarks.precision.export_cost [CHECKPOINT ...] [--decoder] [--data DIR]

`--decoder`: a decoder of Qwen3-Embedding-0.6B's shape with random bfloat16 weights, made in a temporary folder with a
tokenizer trained on the data's texts. Each export is a command of its own (`fastembed-rt export CHECKPOINT --precision
fp32,int8 --no-verify`), so that the peak is its alone; nothing is compared with torch.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..data.workloads import data_folder
from ..errors import BenchmarkError, printed
from ..report.table import table
from .int8 import real_texts

DECODER: dict[str, Any] = {
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
}
NORMS = {
    "qwen3": ("input_layernorm", "post_attention_layernorm"),
    "gemma3_text": tuple(
        f"{name}_layernorm" for name in ("input", "post_attention", "pre_feedforward", "post_feedforward")
    ),
}
GAIN_FROM_ONE = ("gemma3_text",)  # what is stored is the gain less 1
PIECES = 16_000  # of the tokenizer; ids above stay unused
SPREAD = 0.03  # standard deviation of the random weights
LINE = re.compile(r"^\[ *([0-9.]+) s\] (calibrating|calibrated) int8")
PEAK = re.compile(r"([0-9.]+) s, peak memory ([0-9]+) MB")
PATIENCE = 3600  # seconds


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments, data or a failed export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", help="sentence-transformers directories")
    parser.add_argument("--decoder", action="store_true", help="a random decoder too")
    parser.add_argument("--data", help="folder with texts/, for the decoder's tokenizer")
    return printed(measured, parser.parse_args(words))


def measured(args: argparse.Namespace) -> str:
    """The table."""
    body = [cost(Path(checkpoint)) for checkpoint in args.checkpoints]
    if args.decoder:
        with tempfile.TemporaryDirectory() as work:
            body.append(cost(random_decoder(Path(work) / "decoder", real_texts(data_folder(args.data), 2000))))
    if not body:
        raise BenchmarkError("name a checkpoint, or --decoder")
    return table(["", "weights MB", "calibration s", "in all s", "peak MB", "of the weights"], body)


def cost(checkpoint: Path) -> list[str]:
    """A row."""
    weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors")) / 1e6
    with tempfile.TemporaryDirectory() as work:
        options = ["--precision", "fp32,int8", "--no-verify", "--output", str(Path(work) / "made")]
        command = [sys.executable, "-m", "fastembed_rt", "export", str(checkpoint), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = done.stdout + done.stderr
    times = {found[2]: float(found[1]) for line in said.splitlines() if (found := LINE.match(line))}
    last = PEAK.search(said)
    if done.returncode or last is None or len(times) != 2 or not weights:
        raise BenchmarkError(f"the export of {checkpoint} failed, exit code {done.returncode}: {said[-500:]}")
    seconds, peak = float(last[1]), float(last[2])
    calibration = times["calibrated"] - times["calibrating"]
    return [
        checkpoint.name,
        f"{weights:.0f}",
        f"{calibration:.0f}",
        f"{seconds:.0f}",
        f"{peak:.0f}",
        f"{peak / weights:.2f}",
    ]


def random_decoder(directory: Path, texts: Sequence[str], config: dict[str, Any] | None = None) -> Path:
    """Write such a checkpoint; `config` changes some of its settings."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    settings = DECODER | (config or {})
    directory.mkdir(parents=True)
    (directory / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=min(PIECES, settings["vocab_size"]),
        special_tokens=["<|endoftext|>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<|endoftext|>", "model_max_length": 512}
    (directory / "tokenizer_config.json").write_text(json.dumps(names), encoding="utf-8")
    gain = 0 if settings["model_type"] in GAIN_FROM_ONE else 1
    write_random(directory / "model.safetensors", dict(_shapes(settings)), gain=gain)
    return directory


def write_random(file: Path, shapes: dict[str, tuple[int, ...]], *, gain: float = 1) -> None:
    """Tensors of bfloat16 as safetensors has them: the header's length, the header, the values; vectors are `gain`."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": (begin, end)}
    described = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    random = np.random.default_rng(0)
    with file.open("wb") as stream:
        stream.write(len(described).to_bytes(8, "little") + described)
        for shape in shapes.values():
            values = np.full(shape, gain, np.float32)
            if len(shape) > 1:
                values = random.standard_normal(shape, dtype=np.float32) * np.float32(SPREAD)
            stream.write((values.view(np.uint32) >> 16).astype("<u2").tobytes())  # the upper half of a float32


def _shapes(settings: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The tensors of Qwen3Model and of Gemma3TextModel, which normalizes behind its halves too."""
    width, inner, head = settings["hidden_size"], settings["intermediate_size"], settings["head_dim"]
    queries, keys = settings["num_attention_heads"] * head, settings["num_key_value_heads"] * head
    yield "embed_tokens.weight", (settings["vocab_size"], width)
    for k in range(settings["num_hidden_layers"]):
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
        for name, size in (("self_attn.q_norm", head), ("self_attn.k_norm", head)):
            yield f"layers.{k}.{name}.weight", (size,)
        for name in NORMS[settings["model_type"]]:
            yield f"layers.{k}.{name}.weight", (width,)
    yield "norm.weight", (width,)


if __name__ == "__main__":
    sys.exit(main())
