"""Run by test_optimum.py in an environment with optimum: saves a random checkpoint and exports it by command.

Arguments: a directory to work in, the model_type, a precision, more options. Prints the manifest as the last line, or
fails with what the command says.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import transformers
from checkpoints import SIZES, save_tokenizer
from sentence_transformers import SentenceTransformer
from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

from fastembed_rt import cli


def save(work: Path, model_type: str) -> Path:
    """A sentence-transformers directory with a Dense head."""
    torch.manual_seed(0)
    sizes = {**SIZES, "max_position_embeddings": 64, "embedding_size": SIZES["hidden_size"]}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model(model_type, **sizes)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower():
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(work / "plain")
    save_tokenizer(work / "plain", model_type)
    transformer = Transformer(str(work / "plain"), max_seq_length=48)
    width = SIZES["hidden_size"]
    modules = [transformer, Pooling(width, "mean"), Dense(width, 16), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(work / "source"))
    return work / "source"


def main(work: Path, model_type: str, precision: str, *options: str) -> int:
    source, output = save(work, model_type), work / "made"
    failed = cli.main(
        ["export", str(source), "-o", str(output), "--precision", precision, "--min-cosine", "0.9", *options]
    )
    if not failed:
        print("\n" + json.dumps(json.loads((output / "manifest.json").read_text(encoding="utf-8"))))
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), *sys.argv[2:]))
