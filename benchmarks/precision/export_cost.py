"""What an INT8 export costs: seconds of calibration and in all, peak memory in shares of the checkpoint's bytes.

    python -m benchmarks.precision.export_cost [CHECKPOINT ...] [--decoder] [--data DIR]

`--decoder`: a decoder of Qwen3-Embedding-0.6B's shape with random bfloat16 weights, made in a temporary folder with a
tokenizer trained on the data's texts. Each export is a command of its own (`fastembed-rt export CHECKPOINT --precision
fp32,int8 --no-verify`), so that the peak is its alone; nothing is compared with torch.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..data.workloads import data_folder
from ..errors import BenchmarkError, printed
from ..report.table import table
from . import decoder
from .int8 import real_texts

LINE = re.compile(r"^\[ *([0-9.]+) s\] (calibrating|calibrated) int8")
PEAK = re.compile(r"([0-9.]+) s, peak memory ([0-9]+) MB")
PATIENCE = 3600  # seconds


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
            body.append(cost(decoder.write(Path(work) / "decoder", real_texts(data_folder(args.data), 2000))))
    if not body:
        raise BenchmarkError("name a checkpoint, or --decoder")
    return table(["", "weights MB", "calibration s", "in all s", "peak MB", "of the weights"], body)


def cost(checkpoint: Path) -> list[str]:
    """A row."""
    weights = sum(file.stat().st_size for file in checkpoint.glob("*.safetensors")) / 1e6
    with tempfile.TemporaryDirectory() as work:
        options = ["--precision", "fp32,int8", "--no-verify", "--output", str(Path(work) / "made")]
        command = [sys.executable, "-m", "fastembed_rt", "export", str(checkpoint), *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    said = done.stdout + done.stderr
    times = {found[2]: float(found[1]) for line in said.splitlines() if (found := LINE.match(line))}
    last = PEAK.search(said)
    if done.returncode or last is None or len(times) != 2 or not weights:
        raise BenchmarkError(f"the export of {checkpoint} failed, exit code {done.returncode}: {said[-500:]}")
    seconds, peak = float(last[1]), float(last[2])
    calibration = times["calibrated"] - times["calibrating"]
    return [
        checkpoint.name,
        f"{weights:.0f}",
        f"{calibration:.0f}",
        f"{seconds:.0f}",
        f"{peak:.0f}",
        f"{peak / weights:.2f}",
    ]


if __name__ == "__main__":
    sys.exit(main())
