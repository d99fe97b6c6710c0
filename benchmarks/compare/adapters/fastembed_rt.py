"""This project, in the precision asked for."""

from __future__ import annotations

from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main


def load(options: Options) -> Loaded:
    """Load the model directory."""
    from fastembed_rt import EmbeddingModel

    model = EmbeddingModel(
        options.model_dir,
        precision=options.own["precision"],
        threads=options.threads,
        max_length=options.max_length,
        local_files_only=True,
    )
    variant = model.variant

    def count_tokens(texts: list[str]) -> list[int]:
        return [min(count, options.max_length) for count in model.count_tokens(texts).tolist()]

    return Loaded(
        encode=model.encode,
        count_tokens=count_tokens,
        files=[model.path / record.file for record in (*variant.files, model.manifest.tokenizer)],
        facts={
            "graph": variant.graph.file,
            "target": variant.target,
            "precision": variant.precision,
            "threads": model.threads,
            "max_batch_tokens": model.max_batch_tokens,
        },
    )


if __name__ == "__main__":
    main(
        Adapter(
            packages=("fastembed-rt", "onnxruntime", "tokenizers", "numpy"),
            modules=("fastembed_rt.models.embedding",),
            load=load,
        )
    )
