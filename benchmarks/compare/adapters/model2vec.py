"""model2vec, for static tables of vectors: it reads the checkpoint of sentence-transformers."""

from __future__ import annotations

from pathlib import Path

from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main


def load(options: Options) -> Loaded:
    """Load the checkpoint as it is."""
    from model2vec import StaticModel

    model = StaticModel.from_pretrained(options.checkpoint, force_download=False)
    return Loaded(
        encode=lambda texts: model.encode(texts, max_length=options.max_length),
        count_tokens=lambda texts: [min(len(ids), options.max_length) for ids in model.tokenize(texts)],
        files=sorted(path for path in Path(options.checkpoint).rglob("*") if path.is_file()),
        facts={"batch_size": 1024},
    )


if __name__ == "__main__":
    main(Adapter(packages=("model2vec", "tokenizers", "numpy"), modules=("model2vec",), load=load))
