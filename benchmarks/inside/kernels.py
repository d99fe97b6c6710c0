"""Our own kernels, one instruction set after another on this machine: whether their bits are alike, and their speed.

    python -m benchmarks.inside.kernels [--threads 1,16] [--shapes 384x1536] [--rows 64] [--seconds 1] [--json]

Each set that runs here computes the same nodes in a process of its own. INT8 and fp32 have the same bits in all.
bf16 has to have them in all but AMX, which adds in another order: that one is compared with the kernels for AMX whose
instructions are plain C (tests/instructions_in_c.h), as Intel describes them, where there is a C compiler. Exit code 1
where bits differ; how far says the line.

Speed: feed-forwards H -> I -> H of so many rows with GELU, a session of one thread for each of the threads, in 1e9
multiplications and additions a second, of all threads together.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt import native
from fastembed_rt.native import build
from fastembed_rt.run.session import load_onnxruntime

SETS = ("amx", "avx512bf16", "avx512vnni", "avxvnni", "avx2")
OTHER_ORDER = "amx"  # of bfloat16 sums
EMULATED = "amx, instructions in C"
HEADER = Path(__file__).parents[2] / "tests" / "instructions_in_c.h"
PRECISIONS = ("int8", "bf16", "fp32")
Array = npt.NDArray[Any]


def feed_forward(precision: str, width: int, hidden: int, *, gated: bool = False) -> bytes:
    """A graph of one node, whose weights are the same ones each time."""
    import ml_dtypes
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(width + hidden)
    attributes: dict[str, Any] = {"activation": "gelu", "gated": int(gated)}
    constants: list[Array] = []
    for prefix, inputs, outputs in (("up", width, hidden * (1 + gated)), ("down", hidden, width)):
        attributes[f"{prefix}_layers"] = 1
        if precision == "int8":
            # Spread as trained ones are: those that multiply bytes in 16 bits have more to do where more are large.
            values = np.clip(np.rint(random.normal(0, 30, (inputs, outputs))), -127, 127).astype(np.int8)
            scales = np.full(outputs, 0.02 / np.sqrt(inputs), np.float32)
            attributes |= {f"{prefix}_scale": 0.03, f"{prefix}_zero": 100}
            constants += [values, scales]
        else:
            dtype = ml_dtypes.bfloat16 if precision == "bf16" else np.float32
            constants.append(random.normal(0, 1 / np.sqrt(inputs), (inputs, outputs)).astype(dtype))
        constants.append(random.normal(0, 0.1, outputs).astype(np.float32))
    names = [f"c{k}" for k in range(len(constants))]
    op = {"int8": "QuantFeedForward", "bf16": "Bf16FeedForward", "fp32": "Fp32FeedForward"}[precision]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], domain=native.DOMAIN, **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in zip(names, constants, strict=True)],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(native.DOMAIN, 1)]
    made: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return made


def opened(graph: bytes, library: Path, threads: int = 1) -> Any:
    ort = load_onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def outputs(library: Path) -> dict[str, Array]:
    """What the kernels give for nodes of many sizes, and whether a row alone is what it is among others."""
    found: dict[str, Array] = {}
    random = np.random.default_rng(0)
    for width, hidden in ((24, 96), (33, 112), (130, 64), (384, 1536)):
        for rows in (1, 15, 17, 33, 64, 150):
            x = random.normal(0, 1, (rows, width)).astype(np.float32)
            for precision in PRECISIONS:
                for gated in (False, True):
                    session = opened(feed_forward(precision, width, hidden, gated=gated), library)
                    (y,) = session.run(["y"], {"x": x})
                    (last,) = session.run(["y"], {"x": x[-1:]})
                    if not np.array_equal(y[-1:], last):
                        raise SystemExit(f"{precision}: a row depends on the others")
                    found[f"{precision} {rows}x{width}x{hidden}{' gated' * gated}"] = y
    return found


def rate(library: Path, precision: str, width: int, hidden: int, rows: int, threads: int, seconds: float) -> float:
    """1e9 operations a second of as many threads, each with a session of its own on shared weights."""
    graph = feed_forward(precision, width, hidden)
    sessions = [opened(graph, library) for _ in range(threads)]
    x = np.random.default_rng(1).normal(0, 1, (rows, width)).astype(np.float32)
    counts, begin = [0] * threads, threading.Barrier(threads + 1)
    until = [0.0]

    def work(index: int) -> None:
        for _ in range(3):
            sessions[index].run(["y"], {"x": x})
        begin.wait()
        while time.perf_counter() < until[0]:
            sessions[index].run(["y"], {"x": x})
            counts[index] += 1

    running = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for one in running:
        one.start()
    start = time.perf_counter()
    until[0] = start + 60 + seconds  # until all of them have begun
    begin.wait()
    start = time.perf_counter()
    until[0] = start + seconds
    for one in running:
        one.join()
    return sum(counts) * 4 * rows * width * hidden / (time.perf_counter() - start) / 1e9


def child(args: argparse.Namespace) -> int:
    """What one set of kernels gives: arrays into a file, rates to print."""
    library = Path(args.library)
    made: dict[str, Any] = outputs(library)
    np.savez(args.child, **made)
    rates = {}
    for precision, shape, threads in itertools.product(PRECISIONS, args.shapes.split(","), args.threads.split(",")):
        width, hidden = map(int, shape.split("x"))
        if args.seconds:
            found = rate(library, precision, width, hidden, args.rows, int(threads), args.seconds)
            rates[f"{precision} {shape} {threads}"] = found
    print(json.dumps(rates))
    return 0


def emulated(directory: Path) -> Path | None:
    """The operators with AMX in plain C; None without a compiler, or one that is none of ELF."""
    flags = (*build.AVX2, "-O1", "-DTILES_IN_C", "-include", str(HEADER))
    alone = [f"-Wl,--defsym={name}=kernels_avx2" for name in build.KERNELS if name != "kernels_avx2"]
    try:
        return build.build(directory / "emulated.so", {"kernels_avx2": flags}, alone)
    except build.BuildError as error:
        print(f"nothing to compare AMX with: {error}", file=sys.stderr)
        return None


def runs(name: str) -> bool:
    """Whether these kernels run here; asked in another process, for a library is asked once."""
    code = "from fastembed_rt import native; print(native.kernels())"
    environment = {**os.environ, native.SWITCH: name}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    return said.stdout.strip() == name


def measured(args: argparse.Namespace, work: Path) -> Iterator[tuple[str, dict[str, Array], dict[str, float]]]:
    """Name, outputs and rates of each set."""
    jobs: list[tuple[str, str, Path, float]] = [
        (name, name, native.library(), args.seconds) for name in SETS if runs(name)
    ]
    compiled = emulated(work)
    if compiled is not None:
        jobs.append((EMULATED, "", compiled, 0.0))  # its speed says nothing
    for title, name, library, seconds in jobs:
        place = work / "outputs.npz"
        command = [sys.executable, "-m", "benchmarks.inside.kernels", "--child", str(place), "--library", str(library)]
        command += ["--threads", args.threads, "--shapes", args.shapes, "--rows", str(args.rows)]
        done = subprocess.run(
            [*command, "--seconds", str(seconds)],
            env={**os.environ, native.SWITCH: name},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"{title}: exit code {done.returncode}")
        with np.load(place) as arrays:
            yield title, dict(arrays), json.loads(done.stdout)


def compare(found: dict[str, dict[str, Array]]) -> tuple[list[str], bool]:
    """A line for each set and precision, and whether all bits are those expected."""
    lines, alike = [], True
    for precision in PRECISIONS:
        orders = (
            [list(found)]
            if precision != "bf16"
            else [
                [name for name in found if not name.startswith(OTHER_ORDER)],
                [name for name in found if name.startswith(OTHER_ORDER)],
            ]
        )
        for names in filter(None, orders):
            reference = found[names[-1]]
            for name in names[:-1]:
                keys = [key for key in reference if key.startswith(precision)]
                same = all(np.array_equal(found[name][key], reference[key]) for key in keys)
                off = max(float(np.abs(found[name][key] - reference[key]).max()) for key in keys)
                alike = alike and same
                said = "the bits of" if same else f"OTHER BITS, by up to {off:.2g}, than"
                lines.append(f"{precision}: {name} has {said} {names[-1]}")
        if len(orders) == 2 and all(orders):
            first, second = (found[names[-1]] for names in orders)
            keys = [key for key in first if key.startswith(precision)]
            off = max(float(np.abs(first[key] - second[key]).max() / np.abs(first[key]).max()) for key in keys)
            lines.append(f"{precision}: the two orders of sums differ by up to {off:.2g} of the largest output")
    return lines, alike


def main(words: Sequence[str] | None = None) -> int:
    """Compare and measure; 1 where bits differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", default="1", help="numbers of threads (default: %(default)s)")
    parser.add_argument("--shapes", default="384x1536,1024x4096", help="H x I (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=64, help="of a call (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each rate; 0: bits alone (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one line with everything")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--library", help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.child:
        return child(args)
    if native.kernels() is None:
        print(f"error: {native.why_not()}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as work:
        results = list(measured(args, Path(work)))
    lines, alike = compare({title: arrays for title, arrays, _ in results})
    rates = {title: values for title, _, values in results if values}
    if args.json:
        print(json.dumps({"bits": lines, "alike": alike, "gops": rates}))
    else:
        print("\n".join(lines))
        for title, values in rates.items():
            for key, value in values.items():
                precision, shape, threads = key.split()
                print(f"{title}: {precision} {shape}, {threads} threads: {value:,.0f} GOP/s")
    return 0 if alike else 1


if __name__ == "__main__":
    sys.exit(main())
