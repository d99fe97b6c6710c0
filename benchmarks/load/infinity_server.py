"""infinity's command line, with a number of threads for onnxruntime, for which it has no option.

python -m benchmarks.load.infinity_server THREADS v2 --model-id ...
"""

from __future__ import annotations

import importlib
import importlib.util
import sys

from benchmarks.compare.adapters.onnxruntime_threads import bound


def main() -> None:
    """Bound the threads, and become infinity."""
    threads = int(sys.argv.pop(1))
    if importlib.util.find_spec("onnxruntime"):
        bound(threads)
    importlib.import_module("infinity_emb.cli").cli()


if __name__ == "__main__":
    main()
