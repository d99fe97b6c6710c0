"""`make sanitize`: the operators under the sanitizers of gcc or clang, from the tests and from random nodes.

    python tests/native/sanitize.py [--cases 20000] [--first 0] [--threads 4] [--only PART] [--keep DIR]

Its parts, one after another:

tests   tests/native in Python and those of the tokenizer in C, with libraries that watch addresses and undefined
        behaviour (ASan, UBSan), of the operators for CUDA too;
fuzz    random nodes, most of them spoiled, in fuzz/, behind a stand-in for onnxruntime, watched likewise, leaks too; a
        tenth as many through each of the kernels that this processor has, with weights in files that processes share;
tiles   a tenth as many of them through the kernels for AMX, whose instructions are plain C here;
races   the same on several threads at once, watched for races (TSan): sessions that load and release shared weights.

A case is a number: `--first NUMBER --cases 1 --only fuzz` runs a single one again. Exit code 1 after the first fault.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import instructions_in_c

from fastembed_rt.native import SWITCH, build
from fastembed_rt.run.shared_weights import VARIABLE

HERE = Path(__file__).parent
FUZZ = sorted((HERE / "fuzz").glob("*.c"))
TEXT = HERE.parent / "runtime" / "text"
TESTS = (
    HERE,
    *(TEXT / f"test_{name}.py" for name in ("wordpiece", "unigram", "normalized_unigram", "bpe", "vocabulary")),
)
COMMON = ("-O1", "-g", "-fno-omit-frame-pointer")
WATCHED = (*COMMON, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
RACES = (*COMMON, "-fsanitize=thread")
WRAPPED = ("-Wl,--wrap=malloc,--wrap=calloc,--wrap=aligned_alloc",)  # allocations that fail when told to
NO_KERNELS = 3  # exit code of the program, see main.c
# Those of the interpreter and of onnxruntime, which are not ours to mend.
TOLERANT = "detect_leaks=0:alloc_dealloc_mismatch=0:detect_odr_violation=0:allocator_may_return_null=1"


def runtime(name: str) -> str:
    """Path of the compiler's runtime for a sanitizer, which has to be loaded before everything else."""
    done = subprocess.run([*build.c_compiler(), f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def run_tests(directory: Path) -> int:
    """The tests of what is in C, with sanitized libraries."""
    library = build.build(directory / build.LIBRARY, extra=WATCHED)
    environment = {
        **os.environ,
        "FASTEMBED_RT_TEST_OPERATORS": str(library),
        "FASTEMBED_RT_TEST_CUDA_FLAGS": " ".join(WATCHED),
        "LD_PRELOAD": " ".join(map(runtime, ("libasan.so", "libubsan.so"))),
        "ASAN_OPTIONS": TOLERANT,
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    # What a sanitizer says before it ends the process is to be seen: pytest would keep it in a file of its own.
    options = ["-q", "-m", "not slow", "-p", "no:cacheprovider", "--capture=sys"]
    command = [sys.executable, "-m", "pytest", *options, *map(str, TESTS)]
    return subprocess.run(command, env=environment, check=False).returncode


def run_fuzz(directory: Path, first: int, cases: int, *, tiles: bool = False) -> int:
    """Cases side by side in as many processes as this process may use processors; `tiles`: with AMX in plain C."""
    program = directory / "fuzz"
    kernels = {
        name: (*flags, "-DCACHED_BYTES=4096")
        for name, flags in (instructions_in_c.kernels("TILES_IN_C") if tiles else build.KERNELS).items()
    }
    alone = instructions_in_c.alone("kernels_avx2") if tiles else ()
    objects = build.compiled(directory, kernels, extra=WATCHED, others=FUZZ)
    build.link(program, objects, (*WATCHED, *WRAPPED, *alone))
    if cases_fail(program, first, cases):
        return 1
    with tempfile.TemporaryDirectory() as folder:
        others = [] if tiles else [{SWITCH: name.removeprefix("kernels_"), VARIABLE: folder} for name in build.KERNELS]
        return int(any(cases_fail(program, first, max(1, cases // 10), settings) for settings in others))


def cases_fail(program: Path, first: int, cases: int, settings: Mapping[str, str] | None = None) -> bool:
    """Whether one does; with `settings` of the environment that name kernels which the processor lacks, none does."""
    processes = min(len(os.sched_getaffinity(0)), cases)
    edges = [first + cases * k // processes for k in range(processes + 1)]
    # A freed block is kept from being used again for a while; a small while, for speed.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1:quarantine_size_mb=4", **(settings or {})}
    running = [
        subprocess.Popen([str(program), str(start), str(stop - start)], env=environment)
        for start, stop in itertools.pairwise(edges)
    ]
    codes = {process.wait() for process in running}
    return bool(codes - ({0} if settings is None else {0, NO_KERNELS}))


def run_races(directory: Path, first: int, cases: int, threads: int) -> int:
    """The same cases on every thread, so that they share their weights."""
    program = directory / "races"
    # Kernels share nothing but what they are given: they run as they are, several times faster.
    objects = build.compiled(directory, extra=RACES, others=FUZZ, plain=("-O1",))
    build.link(program, objects, (*RACES, *WRAPPED))
    environment = {**os.environ, "TSAN_OPTIONS": "halt_on_error=1"}
    command = [str(program), str(first), str(cases), str(threads)]
    return subprocess.run(command, env=environment, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--only", choices=("tests", "fuzz", "tiles", "races"))
    parser.add_argument("--keep", type=Path, help="directory for what is compiled")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        directory = args.keep or Path(work)
        directory.mkdir(parents=True, exist_ok=True)
        parts = {
            "fuzz": lambda: run_fuzz(directory, args.first, args.cases),
            "tiles": lambda: run_fuzz(directory, args.first, max(1, args.cases // 10), tiles=True),
            "races": lambda: run_races(directory, args.first, max(1, args.cases // 20), args.threads),
            "tests": lambda: run_tests(directory),
        }
        try:
            for name in [args.only] if args.only else parts:
                if parts[name]() != 0:
                    print(f"make sanitize: a fault in {name}, see above", file=sys.stderr)
                    return 1
        except build.BuildError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
