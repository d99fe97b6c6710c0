"""llama.cpp's own server: writes the checkpoint as a GGUF file, then `llama-server` takes this process's place.

python -m benchmarks.load.llama_server CHECKPOINT MODEL_DIR FOLDER --port N --threads N [--precision q8_0]

The binary is the one that LLAMA_SERVER names, or `llama-server` on the PATH. No Python package brings it; a checkout
of llama.cpp makes it: `cmake -B build -DGGML_NATIVE=ON -DLLAMA_USE_PREBUILT_UI=OFF`, then
`cmake --build build --target llama-server`. It does not cut texts: one of more than max_length tokens is an error 500.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

BINARY, VARIABLE = "llama-server", "LLAMA_SERVER"
TEXTS = 32  # of a batch, each in a slot


def binary() -> str | None:
    """The server's file, if there is one."""
    return shutil.which(os.environ.get(VARIABLE) or BINARY)


def missing() -> str | None:
    """Why the server cannot be started; None: it can."""
    return None if binary() else f"no {BINARY} on the PATH, and {VARIABLE} names none; benchmarks/load/llama_server.py"


def words(file: Path, *, port: int, threads: int, max_length: int) -> list[str]:
    """The server's arguments: vectors alone, a batch as large as the longest text, answers to this machine only."""
    options: dict[str, object] = {
        "--model": file,
        "--host": "127.0.0.1",
        "--port": port,
        "--threads": threads,
        "--threads-batch": threads,
        "--parallel": TEXTS,
        "--ctx-size": TEXTS * max_length,
        "--batch-size": max_length,
        "--ubatch-size": max_length,
    }
    return ["--embedding", "--log-disable", *(str(word) for option in options.items() for word in option)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Convert, and become the server."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("model_dir", type=Path, help="of fastembed-rt: tokenizer.json and manifest.json are read")
    parser.add_argument("folder", type=Path, help="for the GGUF file")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--precision", default="q8_0")
    args = parser.parse_args(arguments)
    from benchmarks.compare.adapters.gguf_checkpoint import write

    manifest = json.loads((args.model_dir / "manifest.json").read_text(encoding="utf-8"))
    file = args.folder / f"{args.precision}.gguf"
    tokenizer = args.model_dir / "tokenizer.json"
    write(args.checkpoint, tokenizer, file, precision=args.precision, pooling=manifest["pooling"][0])
    server = binary()
    if server is None:
        raise SystemExit(missing())
    told = words(file, port=args.port, threads=args.threads, max_length=manifest["max_length"])
    os.execv(server, [server, *told])


if __name__ == "__main__":
    main()
