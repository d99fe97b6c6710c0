"""On the path of every interpreter that an engine starts: what its models do is written down, and one may be killed.

FASTEMBED_RT_WATCH is a folder. Each process writes a line a batch into a file of its own there. Where a file `kill` is
in it, the first process that has embedded a batch takes that file away and is gone, with no word to anybody.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

WATCH = os.environ.get("FASTEMBED_RT_WATCH")
WATCHED = "fastembed_rt.scale.embed"


class Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name != WATCHED:
            return None
        sys.meta_path.remove(self)
        found = importlib.machinery.PathFinder.find_spec(name, path)
        assert found is not None
        assert found.loader is not None
        run = found.loader.exec_module

        def then(module: ModuleType) -> None:
            run(module)
            watch(module)

        found.loader.exec_module = then  # type: ignore[method-assign]
        return found


def watch(module: Any) -> None:
    real = module.Embed.results

    def results(embed: Any, *columns: Any) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        made = real(embed, *columns)
        if len(columns[0]):
            assert WATCH
            line = {
                "pid": os.getpid(),
                "rows": len(columns[0]),
                "threads": embed.model.threads,
                "path": str(embed.model.path),
                "begun": time.time() - (time.perf_counter() - wall),
                "wall": time.perf_counter() - wall,
                "cpu": time.process_time() - cpu,
                "ended": time.time(),
            }
            with (Path(WATCH) / f"{os.getpid()}.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            try:
                (Path(WATCH) / "kill").rename(Path(WATCH) / f"killed-{os.getpid()}")
            except FileNotFoundError:
                return made
            os.kill(os.getpid(), signal.SIGKILL)
        return made

    module.Embed.results = results


if WATCH:
    sys.meta_path.insert(0, Finder())
