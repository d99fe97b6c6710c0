"""light-embed with the same fp32 graph. It has no option for threads, so onnxruntime is told behind its back."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compare.adapters.onnxruntime_threads import bound
from benchmarks.compare.adapters.plain_tokenizer import counter, onnx_folder
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main


def load(options: Options) -> Loaded:
    """Load the prepared folder; the graph pools and normalizes, so light-embed must not."""
    from light_embed import TextEmbedding

    bound(options.threads)
    model = TextEmbedding(options.prepared, model_config={"onnx_file": "model.onnx", "normalize": False}, device="cpu")
    return Loaded(
        encode=model.encode,
        count_tokens=counter(model.tokenizer.tokenizer),
        files=[Path(options.prepared, name) for name in ("model.onnx", "tokenizer.json", "tokenizer_config.json")],
        facts={"intra_op_num_threads": options.threads, "batch_size": 32},
    )


if __name__ == "__main__":
    packages = ("light-embed", "onnxruntime", "tokenizers", "numpy")
    main(Adapter(packages=packages, modules=("light_embed",), load=load, prepare=onnx_folder))
