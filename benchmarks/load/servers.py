"""Servers that are compared, as rows of a table: their environments and how each is started."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..compare import contenders
from ..compare.contenders import TORCH, Environment
from ..errors import BenchmarkError
from . import llama_server


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a server is given."""

    model_dir: str  # of fastembed-rt
    checkpoint: str  # sentence-transformers directory
    hub_dir: str  # the same exported with --layout hub, for optimum; "": none
    threads: int
    port: int
    scratch: str = ""  # folder for what a server is to have converted


@dataclass(frozen=True, kw_only=True)
class Server:
    """One way to serve vectors over HTTP."""

    name: str
    title: str
    environment: str
    command: Callable[[Place], list[str]]  # after the environment's python
    variables: Callable[[Place], dict[str, str]] = lambda place: {}
    path: str = "/embeddings"
    base64: bool = True
    ours: bool = False
    floor: bool = False  # the least that HTTP takes, no contender
    least_threads: int = 1
    missing: Callable[[], str | None] = lambda: None  # why it cannot be started here, before anything is installed


def _ours(precision: str, workers: int = 1) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        words = ["-m", "fastembed_rt", "serve", f"model={place.model_dir}", "--precision", precision]
        words += ["--port", str(place.port), "--max-concurrent-requests", "4096"]
        return [*words, *(["--threads", str(place.threads)] if workers == 1 else ["--workers", str(workers)])]

    return command


def _infinity(engine: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        source = place.hub_dir if engine == "optimum" else place.checkpoint
        words = ["-m", "benchmarks.load.infinity_server", str(place.threads), "v2", "--model-id", source]
        words += ["--engine", engine]
        words += ["--served-model-name", "model", "--device", "cpu", "--port", str(place.port), "--host", "127.0.0.1"]
        return [*words, "--log-level", "error", "--no-model-warmup"]

    return command


def _threads(place: Place) -> dict[str, str]:
    number = str(place.threads)
    return {
        "OMP_NUM_THREADS": number,
        "MKL_NUM_THREADS": number,
        "HF_HUB_OFFLINE": "1",
        "DO_NOT_TRACK": "1",
        "INFINITY_ANONYMOUS_USAGE_STATS": "0",
    }


ENVIRONMENTS = {
    row.name: row
    for row in (
        contenders.ENVIRONMENTS["llama-cpp"],
        Environment(
            name="serve",
            steps=(
                ("numpy==2.4.6", "onnxruntime==1.32.0", "tokenizers==0.23.3"),
                ("--editable", "{project}[cpu,server]"),
            ),
        ),
        # infinity 0.0.77 imports optimum.bettertransformer, which optimum 2 has no more, and which wants transformers
        # below 4.49; its options are declared in a way that click 8.2 refuses.
        Environment(
            name="infinity",
            steps=(
                TORCH,
                (
                    "infinity-emb[server,torch]==0.0.77",
                    "optimum==1.24.0",
                    "transformers==4.48.3",
                    "onnxruntime==1.32.0",
                    "onnx==1.23.2",
                    "click==8.1.8",
                ),
            ),
        ),
        Environment(
            name="fastapi",
            steps=(
                TORCH,
                ("sentence-transformers==6.2.0", "transformers==5.23.0", "fastapi==0.165.0"),
                ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0"),
            ),
        ),
    )
}
TABLE = (
    Server(name="rt-int8", title="fastembed-rt INT8", environment="serve", command=_ours("int8"), ours=True),
    Server(name="rt-fp32", title="fastembed-rt fp32", environment="serve", command=_ours("fp32"), ours=True),
    Server(
        name="rt-int8-workers",
        title="fastembed-rt INT8, a worker a CPU",
        environment="serve",
        command=lambda place: _ours("int8", place.threads)(place),
        least_threads=2,
        ours=True,
    ),
    Server(
        name="bare-int8",
        title="encode in uvicorn, INT8, no queue",
        environment="serve",
        command=lambda place: ["-m", "benchmarks.load.bare_app"],
        variables=lambda place: {
            "THREADS": str(place.threads),
            "MODEL": place.model_dir,
            "PRECISION": "int8",
            "PORT": str(place.port),
        },
        floor=True,
    ),
    Server(
        name="infinity-torch",
        title="infinity, torch",
        environment="infinity",
        command=_infinity("torch"),
        variables=_threads,
    ),
    Server(
        name="infinity-optimum",
        title="infinity, optimum (ONNX)",
        environment="infinity",
        command=_infinity("optimum"),
        variables=_threads,
    ),
    Server(
        name="fastapi-st",
        title="FastAPI around sentence-transformers",
        environment="fastapi",
        command=lambda place: ["benchmarks/load/fastapi_app.py"],
        variables=lambda place: {
            **_threads(place),
            "THREADS": str(place.threads),
            "MODEL": place.checkpoint,
            "PORT": str(place.port),
        },
        base64=False,
    ),
    Server(
        name="llama-server",
        title="llama.cpp's llama-server, q8_0",
        environment="llama-cpp",
        command=lambda place: [
            *("-m", "benchmarks.load.llama_server", place.checkpoint, place.model_dir, place.scratch),
            *("--port", str(place.port), "--threads", str(place.threads)),
        ],
        path="/v1/embeddings",
        missing=llama_server.missing,
    ),
)
SERVERS = {row.name: row for row in TABLE}


def named(names: Iterable[str]) -> list[Server]:
    """Rows by name, in the table's order.

    Raises:
        BenchmarkError: a name that is not in the table.
    """
    names = list(names)
    unknown = sorted(set(names) - SERVERS.keys())
    if unknown or not names:
        raise BenchmarkError(f"unknown server {', '.join(unknown) or '(none)'}; there are {', '.join(SERVERS)}")
    return [row for row in TABLE if row.name in names]
