"""embed-anything: Rust and candle. It takes models from the hub only, so the checkpoint is laid out as the hub's cache.

Its default of 32 texts a batch is many times slower than single texts when lengths differ (padding); it gets the faster
way. Its two thread pools multiply: one thread in rayon's, the budget in MKL's was the fastest division.

Its length limit is the size of the position table; the prepared copy has that table cut to max_length.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.plain_tokenizer import SMALL, counter, plain
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

NAME = "benchmark/model"
BATCH = 1
SNAPSHOT = "hub/models--benchmark--model/snapshots/0"
POSITIONS = "embeddings.position_embeddings.weight"
DERIVED = "embeddings.position_ids"  # 0, 1, 2, ...: an old checkpoint's buffer


def prepare(options: Options, folder: Path) -> None:
    """Lay the checkpoint out as a hub cache, cut to max_length."""
    from safetensors.numpy import load_file, save_file

    snapshot = folder / SNAPSHOT
    (snapshot / "1_Pooling").mkdir(parents=True)
    refs = snapshot.parent.parent / "refs"
    refs.mkdir()
    (refs / "main").write_text("0", encoding="utf-8")
    for name in (*SMALL, "modules.json", "1_Pooling/config.json"):
        shutil.copy(Path(options.checkpoint, name), snapshot / name)
    shutil.copy(Path(options.model_dir, "tokenizer.json"), snapshot / "tokenizer.json")
    tensors = load_file(Path(options.checkpoint, "model.safetensors"))
    if POSITIONS not in tensors:
        raise ValueError(f"embed-anything would not cut texts at {options.max_length} tokens: no {POSITIONS}")
    tensors[POSITIONS] = tensors[POSITIONS][: options.max_length].copy()
    tensors.pop(DERIVED, None)
    save_file(tensors, snapshot / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((snapshot / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] = options.max_length
    (snapshot / "config.json").write_text(json.dumps(config), encoding="utf-8")


def load(options: Options) -> Loaded:
    """Load from the prepared cache."""
    os.environ["HF_HOME"] = options.prepared
    os.environ["RAYON_NUM_THREADS"] = "1"
    os.environ["MKL_NUM_THREADS"] = str(options.threads)
    import embed_anything
    import numpy as np

    model = embed_anything.EmbeddingModel.from_pretrained_hf(NAME)
    config = embed_anything.TextEmbedConfig(batch_size=BATCH)

    def encode(texts: list[str]) -> Any:
        answers = embed_anything.embed_query(texts, model, config=config)  # queries are not split into chunks
        return np.array([answer.embedding for answer in answers], dtype=np.float32)

    files = [Path(options.prepared, SNAPSHOT, name) for name in ("model.safetensors", "tokenizer.json", "config.json")]
    return Loaded(
        encode=encode,
        count_tokens=counter(plain(files[1], options.max_length)),  # it does not show its own tokens
        files=files,
        facts={
            "RAYON_NUM_THREADS": 1,
            "MKL_NUM_THREADS": options.threads,
            "batch_size": BATCH,
            "token_counts": "by the tokenizers package",
        },
    )


if __name__ == "__main__":
    packages = ("embed_anything", "numpy")
    main(Adapter(packages=packages, modules=("embed_anything", "numpy"), load=load, prepare=prepare))
