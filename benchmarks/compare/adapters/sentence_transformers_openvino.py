"""sentence-transformers on its OpenVINO backend: its default precision, and static INT8 through NNCF.

OpenVINO chooses the precision of the arithmetic by itself: bf16 on CPUs that have it. It is recorded, not changed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.openvino_facts import facts as openvino_facts
from benchmarks.compare.adapters.sentence_transformers_tokens import token_counter
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

QUANTIZED = "openvino_model_qint8_quantized"  # what export_static_quantized_openvino_model calls it


def graph(options: Options) -> str:
    """Name of the graph, without suffix."""
    return QUANTIZED if options.own.get("quantize") else "openvino_model"


def prepare(options: Options, folder: Path) -> None:
    """Export and, for INT8, quantize with local texts instead of a data set from the hub."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        options.checkpoint, backend="openvino", device="cpu", local_files_only=True, model_kwargs={"export": True}
    )
    save(model, options, folder)


def save(model: Any, options: Options, folder: Path) -> None:
    """Write a model of any of its classes, and quantize it if that was asked for."""
    from sentence_transformers import export_static_quantized_openvino_model

    model.save_pretrained(str(folder))
    if not options.own.get("quantize"):
        return
    texts = json.loads(Path(options.calibration).read_text(encoding="utf-8"))
    calibration = folder / "calibration"
    calibration.mkdir()
    with (calibration / "train.jsonl").open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"sentence": _one(text)}) + "\n" for text in texts)
    export_static_quantized_openvino_model(
        model,
        quantization_config=None,  # its defaults
        model_name_or_path=str(folder),
        dataset_name=str(calibration),  # a folder of files is a data set too
        dataset_config_name="default",
        dataset_split="train",
        column_name="sentence",
    )


def _one(text: Any) -> Any:
    """A text as it is; of a request to a reranker, its question and its first passage as the pair that they are."""
    return text if isinstance(text, str) else f"{text[0]} {text[1][0]}"


def load(options: Options) -> Loaded:
    """Load the prepared export with a budget of threads."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    model: Any = SentenceTransformer(
        options.prepared,
        backend="openvino",
        device="cpu",
        local_files_only=True,
        model_kwargs=model_kwargs(options),
    )
    model.max_seq_length = options.max_length
    backend = model[0].auto_model
    backend.compile()
    compiled = backend.compiled_model if hasattr(backend, "compiled_model") else backend.request
    return Loaded(
        encode=lambda texts: model.encode(texts, show_progress_bar=False),
        count_tokens=token_counter(model),
        files=[
            *(Path(options.prepared, "openvino", graph(options) + suffix) for suffix in (".xml", ".bin")),
            Path(options.prepared, "tokenizer.json"),
        ],
        facts={"graph": graph(options), "batch_size": 32, **openvino_facts(compiled)},
    )


def model_kwargs(options: Options) -> dict[str, Any]:
    """Which graph, on how many threads."""
    return {
        "ov_config": {"INFERENCE_NUM_THREADS": options.threads},
        "file_name": f"openvino/{graph(options)}.xml",
    }


if __name__ == "__main__":
    packages = ("sentence-transformers", "transformers", "optimum-intel", "openvino", "nncf", "torch")
    main(Adapter(packages=packages, modules=("sentence_transformers", "optimum.intel"), load=load, prepare=prepare))
