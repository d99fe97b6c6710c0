"""sentence-transformers on its ONNX backend: the export it makes, and the INT8 preset it offers for this CPU."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters.sentence_transformers_tokens import token_counter
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

PRESETS = (("avx512_vnni", "avx512_vnni"), ("avx512f", "avx512"))  # CPU flag -> name, best first


def preset() -> str:
    """Name of the INT8 preset that sentence-transformers' documentation gives for a CPU like this one."""
    if platform.machine().lower() in ("arm64", "aarch64"):
        return "arm64"
    flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
    return next((name for flag, name in PRESETS if flag in flags), "avx2")


def graph(options: Options) -> str:
    """File that is loaded, below the prepared folder."""
    if not options.own.get("quantize"):
        return "onnx/model.onnx"
    # The preset for AVX2 has unsigned weights, and says so in its name.
    return f"onnx/model_{'quint8' if preset() == 'avx2' else 'qint8'}_{preset()}.onnx"


def prepare(options: Options, folder: Path) -> None:
    """Export with optimum and, for INT8, quantize dynamically: both through sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(
        options.checkpoint, backend="onnx", device="cpu", local_files_only=True, model_kwargs={"export": True}
    )
    save(model, options, folder)


def save(model: Any, options: Options, folder: Path) -> None:
    """Write a model of any of its classes, and quantize it if that was asked for."""
    from sentence_transformers import export_dynamic_quantized_onnx_model

    model.save_pretrained(str(folder))
    if options.own.get("quantize"):
        export_dynamic_quantized_onnx_model(model, preset(), str(folder))


def load(options: Options) -> Loaded:
    """Load the prepared export with a budget of threads."""
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(options.threads)
    model: Any = SentenceTransformer(
        options.prepared, backend="onnx", device="cpu", local_files_only=True, model_kwargs=model_kwargs(options)
    )
    model.max_seq_length = options.max_length
    return Loaded(
        encode=lambda texts: model.encode(texts, show_progress_bar=False),
        count_tokens=token_counter(model),
        files=[Path(options.prepared, name) for name in (graph(options), "tokenizer.json", "config.json")],
        facts={
            "graph": Path(model[0].auto_model.model_path).name,
            "providers": model[0].auto_model.providers,
            "intra_op_num_threads": options.threads,
            "batch_size": 32,
        },
    )


def model_kwargs(options: Options) -> dict[str, Any]:
    """Which graph, on how many threads."""
    import onnxruntime

    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = options.threads
    session_options.inter_op_num_threads = 1
    return {"provider": "CPUExecutionProvider", "session_options": session_options, "file_name": graph(options)}


if __name__ == "__main__":
    packages = ("sentence-transformers", "transformers", "optimum", "optimum-onnx", "onnxruntime", "onnx", "torch")
    main(
        Adapter(packages=packages, modules=("sentence_transformers", "optimum.onnxruntime"), load=load, prepare=prepare)
    )
