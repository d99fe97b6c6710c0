"""fastembed's calls, its own tests and qdrant-client's local inference, on our classes: `make compat`.

    python tests/interop_suites/fastembed_suite.py [--keep FOLDER]

FASTEMBED_RT_FASTEMBED is the Python of an environment with fastembed, qdrant-client, pytest and this package;
FASTEMBED_RT_FASTEMBED_TESTS and FASTEMBED_RT_QDRANT_TESTS name clones, whose files are copied, run, and gone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import stand_ins  # type: ignore[import-not-found]
from sentence_transformers_suite import Outcomes, recorded, unpack  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[2]
PYTHON = os.environ.get("FASTEMBED_RT_FASTEMBED", "")
SUITES = {
    "FASTEMBED_RT_FASTEMBED_TESTS": (
        "tests/test_common.py",
        "tests/test_custom_models.py",
        "tests/test_text_onnx_embeddings.py",
        "tests/test_sparse_embeddings.py",
        "tests/test_late_interaction_embeddings.py",
        "tests/test_text_cross_encoder.py",
    ),
    "FASTEMBED_RT_QDRANT_TESTS": ("tests/embed_tests/test_local_inference.py",),
}
PACKAGES = {"FASTEMBED_RT_FASTEMBED_TESTS": "fastembed", "FASTEMBED_RT_QDRANT_TESTS": "qdrant-client"}
VALUES = "compares with stored numbers of real checkpoints, which are not here"
INSIDE = "is about a class or a session inside fastembed"
OTHERS = "is, or is also, about BM42, miniCOIL or images"
SERVER = "needs a Qdrant server"
# (part of the file's name, part of the test's name): why.
REASONS: dict[tuple[str, str], str] = {
    ("test_text_onnx", "test_embedding["): VALUES,
    ("test_sparse", "test_batch_embedding[prithivida"): VALUES,
    ("test_sparse", "test_single_embedding"): VALUES,
    ("test_sparse", "minicoil"): OTHERS,
    ("test_sparse", "test_stem"): INSIDE,
    ("test_sparse", "test_disable_stemmer"): INSIDE,
    ("test_sparse", "test_if_splade"): "wants nothing opened by queries; here a model is opened whole",
    ("test_late", "test_batch_embedding"): VALUES,
    (
        "test_late",
        "test_token_count",
    ): "its last line wants long queries uncut; here they are cut as the checkpoint says",
    ("test_late", "test_single_embedding"): VALUES,
    ("test_text_cross", "test_rerank"): VALUES,
    **{("test_local_inference", name): SERVER for name in ("test_upload", "test_upload_mixed", "test_bm25_core")},
    **{
        ("test_local_inference", name): OTHERS
        for name in (
            "test_upsert",
            "test_query_points_is_query",
            "test_query_points_groups",
            "test_query_batch_points",
            "test_propagate_options",
            "test_inference_object",
            "test_batch_size_propagation",
        )
    },
    ("test_text_cross", "test_batch_rerank"): VALUES,
    ("test_text_onnx", "test_quantized_model_reports"): INSIDE,
    ("", "test_session_options"): INSIDE,
    ("test_custom_models", "test_mock_add_custom_models"): INSIDE,
    ("test_custom_models", "test_text_custom_model"): INSIDE,
    ("test_custom_models", "test_cross_encoder_custom_model"): INSIDE,
}


def version(package: str) -> str:
    """Of a package in the environment."""
    code = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def run(file: str, work: Path, place: Path) -> Outcomes:
    """What becomes of each test of a file."""
    record = work / "record.json"
    record.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "FASTEMBED_RT_SUITE_RECORD": str(record),
        "FASTEMBED_RT_SUITE_EXPORTS": str(place),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
    }
    command = [
        PYTHON,
        "-m",
        "pytest",
        "-q",
        "-p",
        "outcomes",
        "-p",
        "classes_of_fastembed",
        "-p",
        "no:cacheprovider",
        file,
    ]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=1500)
    return recorded(record, done.stdout + done.stderr)


def main() -> int:
    """Compare the calls, run the files, print a row for each; 1 if something differs without a reason."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for model directories, kept for the next run")
    arguments = parser.parse_args()
    if not PYTHON or stand_ins.tokenizer_files() is None:
        print(f"skipped: {'no MiniLM tokenizer' if PYTHON else 'FASTEMBED_RT_FASTEMBED names no Python'}")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        base = arguments.keep or Path(temporary)
        place = base / "models"
        place.mkdir(parents=True, exist_ok=True)
        stand_ins.model_directories(place)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        calls = [PYTHON, str(Path(__file__).with_name("fastembed_calls.py")), str(place)]
        faults = subprocess.run(calls, env=environment, check=False, timeout=1500).returncode
        versions = {variable: version(name) for variable, name in PACKAGES.items()}
        for variable, files in SUITES.items():
            repository = os.environ.get(variable, "")
            if not repository:
                print(f"skipped: {variable} does not name a clone")
                continue
            work = Path(tempfile.mkdtemp(dir=base))
            print(unpack(Path(repository), work, PACKAGES[variable], versions[variable]))
            for file in files:
                outcomes = run(file, work, place)
                passed, failed, left = 0, {}, {}
                for test, result in outcomes.items():
                    why = next((why for (part, name), why in REASONS.items() if part in file and name in test), None)
                    if result["outcome"] == "passed":
                        passed += 1
                    elif result["outcome"] == "skipped" or why is not None:
                        left[test] = why or f"skipped there: {result['why']}"
                    else:
                        failed[test] = result["why"]
                print(f"| {file.removeprefix('tests/')} | {passed} | {len(failed)} | {len(left)} |", flush=True)
                for label, found in (("failed", failed), ("not applicable", left)):
                    for test, why in found.items():
                        print(f"  {label}: {test}: {why[:300]}")
                faults += len(failed)
            subprocess.run(["rm", "-rf", str(work)], check=False)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
