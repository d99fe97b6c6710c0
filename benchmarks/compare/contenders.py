"""Who is compared: contenders and the environments they live in, as two tables. Adding one is adding a row.

Versions are exact: a result names what it was measured with, and `pip freeze` of each environment is recorded too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import BenchmarkError
from ..report.records import REFERENCE

# First and alone, so that an index with a CPU build of torch gives that one.
TORCH = ("torch==2.13.0",)


@dataclass(frozen=True, kw_only=True)
class Environment:
    """A virtual environment: each step is one `pip install`, in order; {project} is this project's root."""

    name: str
    steps: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One way to turn texts into vectors, as its users would set it up."""

    name: str
    title: str
    environment: str
    adapter: str  # module of benchmarks.compare.adapters
    options: Mapping[str, str] = field(default_factory=dict)  # what the adapter is to do, besides model and threads
    precision: str | None = None  # that the model directory must hold; None: the contender makes its own
    no_cold_start: str | None = None  # why its start is not timed
    converter: str | None = None  # environment that only prepares the model; None: the same one
    arithmetic: str = "fp32"  # fp32, bf16 or int8: what a plot calls it, unless the library says otherwise
    ours: bool = False  # a row of this project


ENVIRONMENTS = {
    row.name: row
    for row in (
        Environment(
            name="sentence-transformers", steps=(TORCH, ("sentence-transformers==6.2.0", "transformers==5.23.0"))
        ),
        # optimum-onnx 0.1.0 needs transformers < 4.58, sentence-transformers 6 needs transformers 5:
        # 5.7.0 is the newest that its ONNX backend runs with.
        Environment(
            name="sentence-transformers-onnx",
            steps=(
                TORCH,
                (
                    "sentence-transformers==5.7.0",
                    "transformers==4.57.6",
                    "optimum==2.1.0",
                    "optimum-onnx==0.1.0",
                    "onnx==1.23.2",
                    "onnxruntime==1.32.0",
                ),
            ),
        ),
        # optimum-intel names torchvision, which it needs for images only and whose PyPI build breaks `import
        # transformers` beside a CPU build of torch: hence --no-deps and the rest by name.
        Environment(
            name="sentence-transformers-openvino",
            steps=(
                TORCH,
                (
                    "sentence-transformers==6.2.0",
                    "transformers==5.5.4",
                    "huggingface-hub==1.21.0",
                    "optimum==2.3.0",
                    "nncf==3.4.0",
                    "openvino==2026.4.1",
                    "openvino-tokenizers==2026.4.1.0",
                    "datasets==5.0.1",
                ),
                ("--no-deps", "optimum-intel==2.2.0"),
            ),
        ),
        Environment(name="fastembed", steps=(("fastembed==0.9.1", "onnxruntime==1.32.0", "tokenizers==0.23.3"),)),
        Environment(name="ctranslate2", steps=(("ctranslate2==4.8.5", "tokenizers==0.23.3", "numpy==2.4.6"),)),
        # torch and transformers convert the checkpoint once; who only encodes does not install them.
        Environment(name="ctranslate2-converter", steps=(TORCH, ("ctranslate2==4.8.5", "transformers==5.23.0"))),
        Environment(name="light-embed", steps=(("light-embed==1.0.9", "onnxruntime==1.32.0", "tokenizers==0.23.3"),)),
        # tokenizers and safetensors are the adapter's: token counts, and the position table cut to max_length.
        Environment(
            name="embed-anything",
            steps=(("embed_anything==0.7.1", "tokenizers==0.23.3", "safetensors==0.8.0", "numpy==2.4.6"),),
        ),
        # Compiled for the CPU that it runs on, without what it has for images: 13 minutes on two busy cores.
        Environment(
            name="llama-cpp",
            steps=(
                ("numpy==2.4.6", "tokenizers==0.23.3", "gguf==0.19.0"),
                ("--config-settings=cmake.args=-DGGML_NATIVE=ON;-DLLAVA_BUILD=OFF", "llama-cpp-python==0.3.36"),
            ),
        ),
        Environment(
            name="flashrank",
            steps=(("flashrank==0.2.10", "onnxruntime==1.32.0", "tokenizers==0.23.3", "numpy==2.4.6"),),
        ),
        Environment(name="model2vec", steps=(("model2vec==0.10.0", "tokenizers==0.23.3", "numpy==2.4.6"),)),
        Environment(
            name="fastembed-rt",
            steps=(("numpy==2.4.6", "onnxruntime==1.32.0", "tokenizers==0.23.3"), ("--editable", "{project}[cpu]")),
        ),
    )
}

TABLE = (
    Contender(
        name="st-torch",
        title="sentence-transformers, torch fp32",
        environment="sentence-transformers",
        adapter="sentence_transformers_torch",
        options={"dtype": "float32"},
    ),
    Contender(
        name="st-torch-bf16",
        title="sentence-transformers, torch bf16",
        environment="sentence-transformers",
        adapter="sentence_transformers_torch",
        options={"dtype": "bfloat16"},
        arithmetic="bf16",
    ),
    Contender(
        name="st-onnx",
        title="sentence-transformers, ONNX fp32",
        environment="sentence-transformers-onnx",
        adapter="sentence_transformers_onnx",
    ),
    Contender(
        name="st-onnx-int8",
        title="sentence-transformers, ONNX INT8 (its preset)",
        environment="sentence-transformers-onnx",
        adapter="sentence_transformers_onnx",
        options={"quantize": "dynamic"},
        arithmetic="int8",
    ),
    Contender(
        name="st-openvino",
        title="sentence-transformers, OpenVINO (its default)",
        environment="sentence-transformers-openvino",
        adapter="sentence_transformers_openvino",
    ),
    Contender(
        name="st-openvino-int8",
        title="sentence-transformers, OpenVINO INT8 (static, NNCF)",
        environment="sentence-transformers-openvino",
        adapter="sentence_transformers_openvino",
        options={"quantize": "static"},
        arithmetic="int8",
    ),
    # Also with another library's environment, for the same OpenVINO.
    Contender(
        name="openvino-by-hand",
        title="OpenVINO by hand (its default)",
        environment="sentence-transformers-openvino",
        adapter="openvino_by_hand",
        precision="fp32",
    ),
    Contender(
        name="openvino-by-hand-int8",
        title="OpenVINO by hand, INT8 (static, NNCF)",
        environment="sentence-transformers-openvino",
        adapter="openvino_by_hand",
        options={"quantize": "static"},
        precision="fp32",
        arithmetic="int8",
    ),
    Contender(
        name="fastembed",
        title="fastembed, same fp32 ONNX, by length",
        environment="fastembed",
        adapter="fastembed",
        precision="fp32",
    ),
    Contender(
        name="ctranslate2-int8",
        title="CTranslate2 int8, pooled by hand",
        environment="ctranslate2",
        adapter="ctranslate2",
        options={"compute_type": "int8"},
        arithmetic="int8",
        converter="ctranslate2-converter",
    ),
    Contender(
        name="light-embed",
        title="light-embed, same fp32 ONNX",
        environment="light-embed",
        adapter="light_embed",
        precision="fp32",
    ),
    Contender(
        name="embed-anything",
        title="embed-anything, candle",
        environment="embed-anything",
        adapter="embed_anything",
        no_cold_start="not timed: it asks the hub before its own cache, and offline it retries for ten seconds",
    ),
    Contender(
        name="llama-cpp-f16",
        title="llama.cpp, GGUF f16",
        environment="llama-cpp",
        adapter="llama_cpp",
        options={"precision": "f16"},
        arithmetic="fp16",
    ),
    # Faster than f16 where the CPU multiplies bfloat16 by itself.
    Contender(
        name="llama-cpp-bf16",
        title="llama.cpp, GGUF bf16",
        environment="llama-cpp",
        adapter="llama_cpp",
        options={"precision": "bf16"},
        arithmetic="bf16",
    ),
    Contender(
        name="llama-cpp-q8",
        title="llama.cpp, GGUF q8_0",
        environment="llama-cpp",
        adapter="llama_cpp",
        options={"precision": "q8_0"},
        arithmetic="int8",
    ),
    Contender(
        name="rt-fp32",
        title="fastembed-rt fp32",
        environment="fastembed-rt",
        adapter="fastembed_rt",
        options={"precision": "fp32"},
        precision="fp32",
        ours=True,
    ),
    Contender(
        name="rt-bf16",
        title="fastembed-rt bf16",
        environment="fastembed-rt",
        adapter="fastembed_rt",
        options={"precision": "bf16"},
        precision="bf16",
        arithmetic="bf16",
        ours=True,
    ),
    Contender(
        name="rt-int8",
        title="fastembed-rt INT8",
        environment="fastembed-rt",
        adapter="fastembed_rt",
        options={"precision": "int8"},
        precision="int8",
        arithmetic="int8",
        ours=True,
    ),
)
CONTENDERS = {row.name: row for row in TABLE}


def named(names: Iterable[str]) -> list[Contender]:
    """Rows by name, in the table's order; the reference always among them.

    Raises:
        BenchmarkError: a name that is not in the table.
    """
    return chosen(TABLE, set(names))


def chosen(table: Sequence[Contender], names: Collection[str]) -> list[Contender]:
    """Rows of a table by name.

    Raises:
        BenchmarkError: no name, or one that is not in the table.
    """
    there = [row.name for row in table]
    unknown = sorted(set(names) - set(there))
    if unknown or not names:
        raise BenchmarkError(f"unknown contender {', '.join(unknown) or '(none)'}; there are {', '.join(there)}")
    return [row for row in table if row.name in names or row.name == REFERENCE]
