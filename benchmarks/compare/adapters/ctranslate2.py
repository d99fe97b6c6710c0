"""CTranslate2: the encoder in int8. It gives token states, so texts are tokenized, sorted and pooled here.

What its users write by hand is written here as well as it can be: no torch, length order, batches of few tokens, and
as many replicas of one thread as there are threads. On two threads that was 1.8 to 2.1 times as fast as one replica of
both with batches of 32 texts, for a single short text too.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.length_batches import batches
from benchmarks.compare.adapters.plain_tokenizer import counter, plain
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

BATCH_TOKENS = 256


def prepare(options: Options, folder: Path) -> None:
    """Convert the checkpoint, as `ct2-transformers-converter` does."""
    from ctranslate2.converters import TransformersConverter

    converter = TransformersConverter(options.checkpoint)
    converter.convert(str(folder), quantization=options.own["compute_type"], force=True)


def load(options: Options) -> Loaded:
    """Load the converted encoder."""
    import ctranslate2
    import numpy as np

    tokenizer_file = Path(options.model_dir, "tokenizer.json")
    tokenizer = plain(tokenizer_file, options.max_length)
    manifest = options.manifest()
    pool = POOLINGS[manifest["pooling"][0]]
    encoder = ctranslate2.Encoder(
        options.prepared,
        device="cpu",
        compute_type=options.own["compute_type"],
        inter_threads=options.threads,
        intra_threads=1,
    )
    workers = ThreadPoolExecutor(options.threads)

    def encode(texts: list[str]) -> Any:
        rows = [row.ids for row in tokenizer.encode_batch(texts)]
        lengths = np.array([len(row) for row in rows])
        out = np.empty((len(rows), manifest["dim"]), dtype=np.float32)

        def work(batch: Sequence[int]) -> None:
            states = np.array(encoder.forward_batch([rows[place] for place in batch]).last_hidden_state)
            out[batch] = pool(states, lengths[batch])

        made = list(batches(lengths.tolist(), tokens=BATCH_TOKENS, threads=options.threads))
        if len(made) == 1:
            work(made[0])
        else:
            list(workers.map(work, made))
        return out / np.linalg.norm(out, axis=1, keepdims=True) if manifest["normalize"] else out

    return Loaded(
        encode=encode,
        count_tokens=counter(tokenizer),
        files=[Path(options.prepared, "model.bin"), tokenizer_file],
        facts={
            "compute_type": encoder.compute_type,
            "intra_threads": 1,
            "inter_threads": encoder.num_encoders,
            "batch_tokens": BATCH_TOKENS,
        },
    )


def mean(states: Any, lengths: Any) -> Any:
    """Average of the real tokens: (B, S, H) and (B,) -> (B, H)."""
    import numpy as np

    mask = np.arange(states.shape[1]) < lengths[:, None]
    return np.einsum("bsh,bs->bh", states, mask.astype(np.float32)) / lengths[:, None]


def cls(states: Any, lengths: Any) -> Any:
    """The first token: (B, S, H) -> (B, H)."""
    return states[:, 0]


POOLINGS = {"mean": mean, "cls": cls}

if __name__ == "__main__":
    packages = ("ctranslate2", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("ctranslate2", "tokenizers"), load=load, prepare=prepare))
