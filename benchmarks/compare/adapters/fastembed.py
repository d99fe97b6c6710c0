"""fastembed with the same fp32 graph as a custom model. The graph pools and normalizes, so fastembed must not."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compare.adapters.plain_tokenizer import counter, onnx_folder
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

NAME = "benchmark/model"


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
    return Loaded(
        encode=lambda texts: np.array(list(model.embed(texts))),
        count_tokens=counter(model.model.tokenizer),
        files=[Path(options.prepared, name) for name in ("model.onnx", "tokenizer.json", "tokenizer_config.json")],
        facts={"providers": session.get_providers(), "intra_op_num_threads": options.threads, "batch_size": 256},
    )


if __name__ == "__main__":
    packages = ("fastembed", "onnxruntime", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("fastembed",), load=load, prepare=onnx_folder))
