"""What an INT8 export costs: seconds of calibration and in all, peak memory in shares of the checkpoint's bytes.

Seconds are the clock's and the processor's: of the first, other work on the machine takes its part. The processor's are
there where /proc is.

    python -m benchmarks.precision.export_cost [CHECKPOINT ...] [--decoder] [--data DIR]

`--decoder`: a decoder of Qwen3-Embedding-0.6B's shape with random bfloat16 weights, made in a temporary folder with a
tokenizer trained on the data's texts. Each export is a command of its own (`fastembed-rt export CHECKPOINT --precision
fp32,int8 --no-verify`), so that the peak is its alone; nothing is compared with torch.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from ..data.workloads import data_folder
from ..errors import BenchmarkError, printed
from ..report.table import table
from . import random_weights
from .int8 import real_texts

LINE = re.compile(r"^\[ *([0-9.]+) s\] (calibrating|calibrated) int8")
PEAK = re.compile(r"([0-9.]+) s, peak memory ([0-9]+) MB")
PATIENCE = 3600  # seconds
HEAD = ("", "weights MB", "calibration s", "CPU s", "in all s", "CPU s", "peak MB", "of the weights")


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments, data or a failed export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", help="sentence-transformers directories")
    parser.add_argument("--decoder", action="store_true", help="a random decoder too")
    parser.add_argument("--data", help="folder with texts/, for the decoder's tokenizer")
    return printed(measured, parser.parse_args(words))


def measured(args: argparse.Namespace) -> str:
    """The table."""
    body = [cost(Path(checkpoint)) for checkpoint in args.checkpoints]
    if args.decoder:
        with tempfile.TemporaryDirectory() as work:
            body.append(cost(random_weights.write(Path(work) / "decoder", real_texts(data_folder(args.data), 2000))))
    if not body:
        raise BenchmarkError("name a checkpoint, or --decoder")
    return table(HEAD, body)


def cost(checkpoint: Path) -> list[str]:
    """A row."""
    weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors")) / 1e6
    times: dict[str, tuple[float, float | None]] = {}
    said: list[str] = []
    before = os.times()
    with tempfile.TemporaryDirectory() as work:
        options = ["--precision", "fp32,int8", "--no-verify", "--output", str(Path(work) / "made")]
        command = [sys.executable, "-m", "fastembed_rt", "export", str(checkpoint), *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
            end = threading.Timer(PATIENCE, running.kill)
            end.start()
            for line in running.stdout or ():
                said.append(line)
                if found := LINE.match(line):
                    times[found[2]] = float(found[1]), cpu_seconds(running.pid)
            end.cancel()
    after = os.times()
    whole = "".join(said)
    last = PEAK.search(whole)
    if running.returncode or last is None or len(times) != 2 or not weights:
        raise BenchmarkError(f"the export of {checkpoint} failed, exit code {running.returncode}: {whole[-500:]}")
    seconds, peak = float(last[1]), float(last[2])
    (begun, cpu_begun), (done, cpu_done) = times["calibrating"], times["calibrated"]
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return [
        checkpoint.name,
        f"{weights:.0f}",
        f"{done - begun:.0f}",
        "" if cpu_begun is None or cpu_done is None else f"{cpu_done - cpu_begun:.0f}",
        f"{seconds:.0f}",
        f"{used:.0f}",
        f"{peak:.0f}",
        f"{peak / weights:.2f}",
    ]


def cpu_seconds(pid: int) -> float | None:
    """Of a process so far, in user and in kernel mode; None where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
