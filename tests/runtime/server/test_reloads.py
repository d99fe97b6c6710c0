"""Models that are replaced while requests run: by a signal or a route, in one process and in several."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import save_sentence_transformers
from loopback import Load, Started, wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
TEXT = "the cat sleeps."
BODY = json.dumps({"inputs": TEXT}).encode()


@pytest.fixture(scope="module")
def pair(directories: Any) -> Iterator[Started]:
    """Two workers."""
    with Started(directories.models["encoder"], "--workers", 2, "--api-key", "k") as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        yield started


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_under_load_loses_nothing_and_swaps_the_model(directories: Any, tmp_path: Path, workers: int) -> None:
    from fastembed_rt import EmbeddingModel
    from fastembed_rt_export.pipeline import ExportOptions, export

    place = tmp_path / "model"
    shutil.copytree(directories.models["encoder"], place)
    other = tmp_path / "other"
    export(
        str(save_sentence_transformers(tmp_path / "checkpoint", max_seq_length=8)),
        ExportOptions(output=other, verify=False),
    )
    long = "the cat sleeps under the old tree and the dog runs . " * 3
    with EmbeddingModel(place) as old, EmbeddingModel(other) as new:
        expected = {"old": old.encode(long), "new": new.encode(long)}
    assert not np.array_equal(expected["old"], expected["new"])
    with Started(f"m={place}", "--workers", workers, "--api-key", "k") as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers", 1) == workers)
        key = {"authorization": "Bearer k"}

        def vector() -> Any:
            return np.array(started.ask("POST", "/embed", {"inputs": long}, **key)[2][0], np.float32)

        np.testing.assert_array_equal(vector(), expected["old"])

        def swap() -> None:
            place.rename(tmp_path / "gone")
            other.rename(place)
            status, _, answer = started.ask("POST", "/admin/reload", {}, **key)
            assert status == 200, answer
            (model,) = answer["models"]
            assert (model["name"], model["before"] != model["now"]) == ("m", True)

        load = Load(started.port, json.dumps({"inputs": long}).encode(), key="k")

        async def both() -> None:
            task = asyncio.create_task(load.run(8, 2.5))
            await asyncio.sleep(0.5)
            await asyncio.to_thread(swap)
            await task

        asyncio.run(both())
        assert (set(load.answers), load.lost, load.refused) == ({200}, [], 0)
        answered = {np.array(json.loads(body)[0], np.float32).tobytes() for body in load.bodies}
        assert answered == {vector.tobytes() for vector in expected.values()}  # each of them whole
        for _ in range(6):
            np.testing.assert_array_equal(vector(), expected["new"])
        shutil.rmtree(place)  # a reload that fails changes nothing
        status, _, answer = started.ask("POST", "/admin/reload", {}, **key)
        assert (status, answer["error_type"], str(tmp_path) in json.dumps(answer)) == (424, "Backend", False)
        np.testing.assert_array_equal(vector(), expected["new"])


CANNOT_RELOAD = """
# A worker that answers a request, which is the one for the reload, cannot load the model again.
from fastembed_rt.server import reloading
loaded = reloading.Reloader._loaded
def without_memory(self):
    if self._app._generation.count:
        raise reloading.ReloadError("no memory")
    return loaded(self)
reloading.Reloader._loaded = without_memory
"""


def test_a_worker_that_cannot_reload_answers_and_is_started_again(two_in_int8: list[Path], tmp_path: Path) -> None:
    from fastembed_rt import EmbeddingModel

    place = tmp_path / "model"
    place.symlink_to(two_in_int8[0])
    (tmp_path / "sitecustomize.py").write_text(CANNOT_RELOAD)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    vectors = []
    for path in two_in_int8:
        with EmbeddingModel(path, precision="int8") as model:
            vectors.append(model.encode(TEXT))
    key = {"authorization": "Bearer k"}

    def vector() -> Any:
        return np.array(started.ask("POST", "/embed", {"inputs": TEXT}, **key)[2][0], np.float32)

    with Started(place, "--workers", 2, "--precision", "int8", "--api-key", "k", PYTHONPATH=paths) as started:
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        before = started.children()
        place.unlink()
        place.symlink_to(two_in_int8[1])
        for _ in range(100):
            status, _, answer = started.ask("POST", "/admin/reload", {}, **key)
            if status == 200:
                break
            assert (status, answer["error_type"]) == (424, "Backend")  # the first was asked: nothing has changed
            np.testing.assert_array_equal(vector(), vectors[0])
        assert (status, answer["restarted"]) == (200, [1])
        wait_for(lambda: len(started.children()) == 2 and len(set(before) & set(started.children())) == 1)
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        for _ in range(10):  # nobody still has the old one
            np.testing.assert_array_equal(vector(), vectors[1])
        code, said = started.end(signal.SIGTERM)
        assert (code, "worker 1 cannot reload and is started again: no memory" in said) == (0, True), said


ENDS_OVER_IT = """
# A worker ends when it is to load the model again, other than the one that answers the request for it.
import os, signal
from fastembed_rt.server import reloading
loaded = reloading.Reloader._loaded
def ends(self):
    if not self._app._generation.count:
        os.kill(os.getpid(), signal.SIGKILL)
    return loaded(self)
reloading.Reloader._loaded = ends
"""


def test_who_reloads_is_told_that_a_worker_ended_over_it(two_in_int8: list[Path], tmp_path: Path) -> None:
    from fastembed_rt import EmbeddingModel

    place = tmp_path / "model"
    place.symlink_to(two_in_int8[0])
    (tmp_path / "sitecustomize.py").write_text(ENDS_OVER_IT)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    wanted = []
    for path in two_in_int8:
        with EmbeddingModel(path, precision="int8") as model:
            wanted.append(model.encode(TEXT))
    key = {"authorization": "Bearer k"}
    with Started(place, "--workers", 2, "--precision", "int8", "--api-key", "k", PYTHONPATH=paths) as started:
        for k in range(1, 40):  # until the one that is asked first is not the one that answers
            wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
            place.unlink()
            place.symlink_to(two_in_int8[k % 2])
            status, _, answer = started.ask("POST", "/admin/reload", {}, **key)
            if status != 200:
                break
            assert (answer["restarted"], answer["loading"]) == ([1], [])
            wait_for(lambda k=k: all_give(started, wanted[k % 2]))
        rest = "if it has another model when it is there again, the others load that too"
        assert (status, answer["error"]) == (424, f"worker 0 ended; {rest}")
        wait_for(lambda: all_give(started, wanted[k % 2]))
        wait_for(lambda: started.metrics().get("fastembed_rt_workers") == 2)
        assert all_give(started, wanted[k % 2])


def all_give(started: Started, vector: Any) -> bool:
    with contextlib.suppress(OSError, http.client.HTTPException):  # of a worker that just ends
        answers = [started.ask("POST", "/embed", {"inputs": TEXT}, authorization="Bearer k") for _ in range(10)]
        return all(
            status == 200 and np.array_equal(np.array(found[0], np.float32), vector) for status, _, found in answers
        )
    return False


@pytest.mark.parametrize("count", [1, 2])
def test_a_hangup_before_it_is_ready_is_a_reload_afterwards(
    two_in_int8: list[Path], tmp_path: Path, count: int
) -> None:
    from fastembed_rt import EmbeddingModel

    place = tmp_path / "model"
    place.symlink_to(two_in_int8[0])
    with EmbeddingModel(two_in_int8[1], precision="int8") as model:
        wanted = model.encode(TEXT)
    started = Started(place, "--workers", count, "--precision", "int8")
    wait_for(lambda: is_listening(started.port))  # and has not loaded the model yet
    place.unlink()
    place.symlink_to(two_in_int8[1])
    started.process.send_signal(signal.SIGHUP)
    with started:
        wait_for(
            lambda: all(
                np.array_equal(np.array(started.ask("POST", "/embed", {"inputs": TEXT})[2][0], np.float32), wanted)
                for _ in range(10)
            )
        )
        assert started.end(signal.SIGTERM)[0] == 0


HUNG_UP = """
# SIGHUP comes when the command line is about to import what the command needs.
import os, signal, sys
class Import:
    def find_spec(self, name, *_):
        if name == "fastembed_rt.cli.serve":
            os.kill(os.getpid(), signal.SIGHUP)
sys.meta_path.insert(0, Import())
"""


def test_a_hangup_comes_too_early_for_no_server(directories: Any, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HUNG_UP)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with Started(directories.models["encoder"], PYTHONPATH=paths) as started:
        wait_for(lambda: started.ask("POST", "/embed", {"inputs": TEXT})[0] == 200)
        _, said = started.end(signal.SIGTERM)
    assert "reloaded: encoder" in said


LOADS_SLOWLY = """
import time
from fastembed_rt.server import lasting, loading
lasting.FIRST_SECONDS = 0.1
load = loading.load
def slowly(*arguments, **options):
    time.sleep(0.5)
    return load(*arguments, **options)
loading.load = slowly
"""


def test_what_loads_for_long_is_told_of(directories: Any, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(LOADS_SLOWLY)
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    with Started(directories.models["encoder"], "--api-key", "k", PYTHONPATH=paths) as started:
        assert started.ask("POST", "/admin/reload", {}, authorization="Bearer k")[0] == 200
        _, said = started.end(signal.SIGTERM)
    for line in ("the models have been loading", f"reload: process {started.process.pid} has been loading"):
        assert said.index(f"{line} for 0.1 s") < said.index(f"{line} for 0.2 s")


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def test_a_hangup_ends_no_worker(pair: Started) -> None:
    before = pair.children()
    for child in before:
        os.kill(child, signal.SIGHUP)
    time.sleep(0.3)
    assert pair.children() == before
    assert pair.ask("POST", "/embed", {"inputs": TEXT}, authorization="Bearer k")[0] == 200


def test_a_reload_needs_a_key(pair: Started, directories: Any) -> None:
    assert pair.ask("POST", "/admin/reload", {})[0] == 401
    assert pair.ask("POST", "/admin/reload", {}, authorization="Bearer k")[0] == 200
    before = pair.metrics()
    pair.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert pair.ask("POST", "/embed", {"inputs": TEXT}, authorization="Bearer k")[0] == 200
    after = pair.metrics()
    assert all(
        after[name] >= value for name, value in before.items() if name.endswith(("_count", "_total", "_success"))
    )
