"""sentence-transformers on torch, in fp32 or bf16: what most people run."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compare.adapters.sentence_transformers_tokens import token_counter
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

FILES = ("model.safetensors", "tokenizer.json", "config.json")


def load(options: Options) -> Loaded:
    """Load the checkpoint as it is."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    model = SentenceTransformer(
        options.checkpoint,
        device="cpu",
        local_files_only=True,
        model_kwargs={"dtype": getattr(torch, options.own["dtype"])},
    )
    if options.manifest()["source"]["model_type"] != "static":  # a table's limit is its tokenizer's own
        model.max_seq_length = options.max_length
    return Loaded(
        encode=lambda texts: model.encode(texts, show_progress_bar=False),
        count_tokens=token_counter(model),
        files=[path for name in FILES if (path := Path(options.checkpoint, name)).is_file()],
        facts={
            "dtype": str(next(model.parameters()).dtype),
            "torch_threads": torch.get_num_threads(),
            "batch_size": 32,
        },
    )


if __name__ == "__main__":
    main(
        Adapter(
            packages=("sentence-transformers", "transformers", "torch"), modules=("sentence_transformers",), load=load
        )
    )
