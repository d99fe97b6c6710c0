"""fastembed with the same fp32 graph as a custom model. The graph pools and normalizes, so fastembed must not.

Its default of 256 texts a batch, as they come, pads all to the longest: texts of unequal length take four times as long
as they need. It gets them by length, in batches of four. Its `parallel` is not used: each call would start processes
that load the model again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.plain_tokenizer import counter, onnx_folder
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

NAME = "benchmark/model"
BATCH = 4  # of 1 to 16 the fastest on mixed texts; 16 was ahead by a fifth on short ones, by a tenth on long ones


def load(options: Options) -> Loaded:
    """Register the prepared folder as a custom model and load it."""
    import numpy as np
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model=NAME,
        pooling=PoolingType.DISABLED,
        normalization=False,
        sources=ModelSource(hf=NAME),
        dim=options.manifest()["dim"],
        model_file="model.onnx",
    )
    model = TextEmbedding(NAME, specific_model_path=options.prepared, threads=options.threads, cuda=False)
    session = model.model.model

    def encode(texts: list[str]) -> Any:
        order = sorted(range(len(texts)), key=lambda place: -len(texts[place]))
        vectors = np.array(list(model.embed([texts[place] for place in order], batch_size=BATCH)))
        out = np.empty_like(vectors)
        out[order] = vectors
        return out

    return Loaded(
        encode=encode,
        count_tokens=counter(model.model.tokenizer),
        files=[Path(options.prepared, name) for name in ("model.onnx", "tokenizer.json", "tokenizer_config.json")],
        facts={"providers": session.get_providers(), "intra_op_num_threads": options.threads, "batch_size": BATCH},
    )


if __name__ == "__main__":
    packages = ("fastembed", "onnxruntime", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("fastembed",), load=load, prepare=onnx_folder))
