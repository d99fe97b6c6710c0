"""sentence-transformers' own tests, run on our classes: `make compat`; FASTEMBED_RT_ST_TESTS names its repository.

    python tests/interop_suites/sentence_transformers_suite.py [--only test_model] [--record FILE]

The repository is a checkout or a bare clone; its files are copied into a temporary folder and none is kept: those of
the version that is installed, where the clone has its tag, and a line says which they are. What does not pass with
our classes runs again with the library's own, on the same stand-in checkpoints. A test that fails there too is not
applicable; one that fails with ours alone has a reason in `differences.py`, or is a fault.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import differences  # type: ignore[import-not-found]
import stand_ins  # type: ignore[import-not-found]
from differences import FILE

ROOT = Path(__file__).parents[2]
PACKAGE, VARIABLE = "sentence-transformers", "FASTEMBED_RT_ST_TESTS"
FILES = {
    "tests/sentence_transformer/test_model.py": "ours",
    "tests/sentence_transformer/test_compute_embeddings.py": "ours",
    "tests/sentence_transformer/test_multi_process.py": "ours",
    "tests/sentence_transformer/evaluation/test_binary_classification_evaluator.py": "ours",
    "tests/sentence_transformer/evaluation/test_information_retrieval_evaluator.py": "ours",
    "tests/sentence_transformer/evaluation/test_label_accuracy_evaluator.py": "ours",
    "tests/sentence_transformer/evaluation/test_nanobeir_evaluator.py": "ours",
    "tests/sentence_transformer/evaluation/test_paraphrase_mining_evaluator.py": "ours",
    "tests/sentence_transformer/evaluation/test_triplet_evaluator.py": "ours",
    "tests/cross_encoder/test_model.py": "ours",
    "tests/cross_encoder/test_multi_process.py": "ours",
    "tests/cross_encoder/evaluation/test_reranking.py": "ours",
    "tests/sparse_encoder/test_model.py": "ours",
    "tests/sparse_encoder/test_multi_process.py": "ours",
    "tests/util/test_similarity.py": "numpy",
    "tests/util/test_retrieval.py": "numpy",
    "tests/util/test_quantization.py": "numpy",
    "tests/util/test_tensor.py": "numpy",
}
Outcomes = dict[str, dict[str, str]]


def unpack(repository: Path, target: Path, package: str, version: str) -> str:
    """The tests of the version that is installed, where the clone has its tag; else a checkout's, as it is, or HEAD's.

    Returns which they are, in words.
    """
    git = ["git", "-C", str(repository)]
    checkout = (repository / "tests").is_dir()
    tag = f"refs/tags/v{version}"
    tagged = False
    if not checkout or (repository / ".git").exists():
        found = subprocess.run([*git, "rev-parse", "--verify", tag], capture_output=True, check=False)
        tagged = found.returncode == 0
    if checkout and not tagged:
        shutil.copytree(repository / "tests", target / "tests")
        project = repository / "pyproject.toml"
        if project.is_file():
            shutil.copy(project, target)
    else:
        archive = [*git, "archive", tag if tagged else "HEAD", "tests", "pyproject.toml"]
        done = subprocess.run(archive, capture_output=True, check=True)
        with tarfile.open(fileobj=BytesIO(done.stdout)) as content:
            content.extractall(target, filter="data")
    return tests_of(target / "pyproject.toml", package, version)


def tests_of(project: Path, package: str, version: str) -> str:
    """In words, which version has these tests; `project`, which says so, is removed, for its settings of pytest."""
    said = tomllib.loads(project.read_text(encoding="utf-8")) if project.is_file() else {}
    project.unlink(missing_ok=True)
    theirs = {**said.get("tool", {}).get("poetry", {}), **said.get("project", {})}.get("version", "an unknown version")
    if theirs == version:
        return f"the tests of {package} {version}, which is installed"
    return (
        f"the tests of {package} {theirs}, with {version} installed: the clone has no tag v{version}. "
        "Where they do not fit, fetch its tags, or install the version that it has."
    )


def run(file: str, suite: str, work: Path, tests: Sequence[str] = ()) -> Outcomes:
    """What becomes of each test of a file, or of some."""
    record = work / "record.json"
    record.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "HF_HOME": str(work.parent / "hub-home"),
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "FASTEMBED_RT_SUITE": suite,
        "FASTEMBED_RT_SUITE_RECORD": str(record),
        "FASTEMBED_RT_SUITE_EXPORTS": str(work.parent / "exports"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "export"), str(Path(__file__).parent)]),
    }
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "outcomes",
        "-p",
        "classes_of_suite",
        "-p",
        "no:cacheprovider",
    ]
    command += [f"{file}::{test}" for test in tests] or [file]
    done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False, timeout=1500)
    return recorded(record, done.stdout + done.stderr)


def recorded(record: Path, said: str) -> Outcomes:
    """What pytest wrote down; a file whose tests could not even be collected is a failure of its own."""
    outcomes: Outcomes = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    return outcomes or {FILE: {"outcome": "failed", "why": said[-400:]}}


def with_both(file: str, suite: str, work: Path) -> tuple[Outcomes, Outcomes]:
    """Outcomes with our classes, and what did not pass with the library's own."""
    ours = run(file, suite, work)
    other = [test for test, result in ours.items() if result["outcome"] != "passed"]
    if not other:
        return ours, {}
    return ours, run(file, "theirs", work, [] if FILE in other else other)  # which names no test: all


def main() -> int:
    """Run the files, print a row for each and every failure without a reason; 1 if there is one."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="files whose names hold this")
    parser.add_argument("--record", type=Path, help="write all outcomes there, as JSON")
    parser.add_argument("--keep", type=Path, help="folder for stand-in checkpoints and exports, kept for the next run")
    arguments = parser.parse_args()
    repository = os.environ.get(VARIABLE, "")
    if not repository or stand_ins.tokenizer_files() is None:
        why = f"{VARIABLE} does not name a clone of sentence-transformers" if not repository else "no MiniLM tokenizer"
        print(f"skipped: {why}")
        return 0
    faults = 0
    all_outcomes: dict[str, dict[str, Outcomes]] = {}
    with tempfile.TemporaryDirectory() as place:
        base = arguments.keep or Path(place)
        (base / "exports").mkdir(parents=True, exist_ok=True)
        stand_ins.fill(base / "hub-home")
        work = Path(tempfile.mkdtemp(dir=base))
        print(unpack(Path(repository), work, PACKAGE, importlib.metadata.version(PACKAGE)))
        print("| file | passed | failed | not applicable |\n| --- | --- | --- | --- |")
        for file, suite in FILES.items():
            if arguments.only and arguments.only not in file:
                continue
            ours, theirs = with_both(file, suite, work)
            all_outcomes[file] = {"theirs": theirs, "ours": ours}
            passed, failed, skipped = differences.sorted_out(file, theirs, ours)
            print(f"| {file.removeprefix('tests/')} | {len(passed)} | {len(failed)} | {len(skipped)} |", flush=True)
            for label, found in (("failed", failed), ("not applicable", skipped)):
                for why in sorted(set(found.values())):
                    tests = [test for test, reason in found.items() if reason == why]
                    print(f"  {label}: {len(tests)}, such as {tests[0]}: {why[:200]}")
            faults += len(failed)
        subprocess.run(["rm", "-rf", str(work)], check=False)
    if arguments.record:
        arguments.record.write_text(json.dumps(all_outcomes, indent=1), encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
