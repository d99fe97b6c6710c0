"""Several GPUs, and several models on one: on onnxruntime-gpu with CUDA pretended, which refuses what a card would."""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fake_cuda
import pytest
from checkpoints import save_sentence_transformers

from fastembed_rt.errors import ProviderUnavailableError
from fastembed_rt.manifest import read
from fastembed_rt.native import cuda
from fastembed_rt.run import captures, cuda_operators, nvidia, providers
from fastembed_rt.run.session import choose_variant
from fastembed_rt_export.pipeline import ExportOptions, export

GPU_WHEEL = os.environ.get("FASTEMBED_RT_GPU_WHEEL", "")
pretended = pytest.mark.skipif(
    not GPU_WHEEL or sys.platform != "linux" or shutil.which("gcc") is None,
    reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu, or no gcc on Linux",
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model for cuda."""
    root = tmp_path_factory.mktemp("devices")
    options = ExportOptions(output=root / "m", targets=("cuda",), precisions=("fp16", "fp32"), verify=False)
    export(str(save_sentence_transformers(root / "c")), options)
    return root / "m"


def each_in_a_thread(load: Callable[[int], None]) -> None:
    """Three devices at once."""
    threads = [threading.Thread(target=load, args=(device,)) for device in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# Which graph, of which device


def test_each_device_is_asked_whether_it_runs_the_operators(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card that has them beside one that has not: what runs depends on those that are to run it."""
    capabilities = {0: 70, 1: 90}
    monkeypatch.setattr(cuda_operators, "why_not", lambda name, device: cuda.why_not_on(capabilities[device], name))
    described = read(directory)

    def target(*devices: int, **asked: Any) -> str:
        return choose_variant(described, provider="cuda", precision="fp16", devices=devices, **asked).target

    assert [target(0), target(1), target(0, 1), target(1, 0)] == ["cuda", "cuda-native", "cuda", "cuda"]
    with pytest.raises(ProviderUnavailableError, match=r"wants compute capability 7.5, this card has 7.0"):
        target(1, 0, target="cuda-native")


def test_auto_wants_every_device_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {"cuda_version": "13.0", "get_available_providers": lambda: ["CUDAExecutionProvider"]}
    monkeypatch.setattr(providers, "load_onnxruntime", lambda: type("onnxruntime", (), there))
    monkeypatch.setattr(nvidia, "preload", lambda _: None)
    monkeypatch.setattr(nvidia, "failures", lambda _: {})
    monkeypatch.setattr(nvidia, "devices", lambda: (2, ""))
    taken = [providers.choose("auto", lambda _: None, devices) for devices in ((0,), (0, 1), (2, 0))]
    assert [choice.provider for choice in taken] == ["cuda", "cuda", "cpu"]
    assert "no GPU 2: the driver shows 2" in taken[-1].why


# What processes of several cards choose


class Operators:
    """A library that times what it does not know: another choice at each time."""

    def __init__(self) -> None:
        self.known: dict[int, bytes] = {}
        self.timed = 0

    def learn(self, _: Path, device: int, choices: bytes) -> None:
        self.known[device] = self.known.get(device) or choices

    def choices(self, _: Path, device: int) -> bytes:
        return self.known.get(device, b"")

    def load(self, device: int) -> None:
        if not self.known.get(device):
            self.timed += 1
            self.known[device] = f"choice {self.timed}".encode()


def test_cards_that_load_a_graph_at_a_time_choose_alike(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Texts of one call go to either: by itself each would compute other bits."""
    made = Operators()
    for name in ("learn", "choices"):
        monkeypatch.setattr(cuda, name, getattr(made, name))
    monkeypatch.setattr(cuda_operators, "_file", lambda _: tmp_path / "new" / "x.algorithms")
    inside = threading.Barrier(3, timeout=0.5)
    together: list[int] = []

    def load(device: int) -> None:
        with cuda_operators.remembered(device, "a graph"):
            try:
                inside.wait()
                together.append(device)
            except threading.BrokenBarrierError:
                pass
            made.load(device)

    each_in_a_thread(load)
    assert made.known == dict.fromkeys(range(3), b"choice 1")
    assert not together, "one times while the others wait"
    # Known, it is loaded by all at a time; and so are others that this process loads then.
    inside.reset()
    each_in_a_thread(load)
    assert sorted(together) == [0, 1, 2]


def test_what_others_chose_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "x.algorithms"
    own = [b"ab"]
    monkeypatch.setattr(cuda, "learn", lambda _, device, choices: own.append(choices))
    monkeypatch.setattr(cuda, "choices", lambda _, device: b"".join(sorted(set(filter(None, own)))))
    monkeypatch.setattr(cuda_operators, "_file", lambda _: file)
    cuda_operators.write(file, cuda_operators.Known(b"cd", frozenset({"mine"})))
    with cuda_operators.remembered(0, "mine"):
        cuda_operators.write(file, cuda_operators.Known(b"ef", frozenset({"mine", "other"})))
    assert cuda_operators.read(file) == cuda_operators.Known(b"abcdef", frozenset({"mine", "other"}))


# Captures


def test_a_thread_is_as_it_was_when_it_stood_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        mode = 0

        @classmethod
        def cudaThreadExchangeStreamCaptureMode(cls, given: Any) -> int:  # noqa: N802
            value = given._obj
            cls.mode, value.value = value.value, cls.mode
            return 0

    monkeypatch.setattr(captures, "cuda_runtime", lambda: Runtime)
    with captures.apart():
        assert Runtime.mode == captures.THREAD_LOCAL
        with captures.apart():
            assert Runtime.mode == captures.THREAD_LOCAL
        assert Runtime.mode == captures.THREAD_LOCAL
    assert Runtime.mode == 0


SEVERAL = """
import sys, threading, fastembed_rt
failed = []
def guarded(work):
    def run():
        try: work()
        except BaseException as error: failed.append(f"{type(error).__name__}: {error}")
    return run
def together(*work):
    threads = [threading.Thread(target=guarded(one)) for one in work]
    [thread.start() for thread in threads]; [thread.join() for thread in threads]
def opened(precision, *devices, **options):
    return fastembed_rt.EmbeddingModel(
        sys.argv[1], provider="cuda", precision=precision, device_ids=devices, threads=2, **options)
few, many = ["a cat", "a dog"], ["the cat sleeps " * n for n in range(1, 40)] * 20
def use(model):
    for k in range(1, 60, 6): model.encode(["a " * k])
    assert model.encode(many).shape == (780, 24)
"""


@pytest.mark.slow
@pretended
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_two_devices_in_one_process(directory: Path, tmp_path: Path, precision: str) -> None:
    """Sessions, streams, buffers, handles and captured graphs of each are its own, whichever thread calls."""
    code = SEVERAL + (
        "models = [opened(sys.argv[2], 0), opened(sys.argv[2], 1)]\n"
        "together(*(lambda model=model: use(model) for model in models * 2))\n"
        "for _ in range(2): [model.encode(few) for model in models]\n"
        "sessions = [session for model in models for session in model._engine.sessions]\n"
        "print(failed, [session._device for session in sessions], all(s.captured_shapes() for s in sessions))\n"
        "try: opened(sys.argv[2], 2)\n"
        "except fastembed_rt.FastembedRtError as error: print(error)\n"
    )
    printed, complained = fake_cuda.run(GPU_WHEEL, code, [directory, precision], tmp_path, devices=2)
    assert "fake CUDA" not in complained
    said, refused = printed.splitlines()
    assert said == "[] [0, 1] True"
    assert "no GPU 2: the driver shows 2, counted from 0" in refused


@pytest.mark.slow
@pretended
def test_two_devices_in_a_process_each(directory: Path, tmp_path: Path) -> None:
    code = SEVERAL + (
        "with opened('fp16', 0, 1) as model:\n"
        "    together(lambda: use(model), lambda: use(model), lambda: model.encode(few))\n"
        "    print(failed, model.variant.target, len(set(model._engine.processes)))\n"
    )
    printed, complained = fake_cuda.run(GPU_WHEEL, code, [directory], tmp_path, devices=2)
    assert "fake CUDA" not in complained
    assert printed == "[] cuda-native 2\n"


@pytest.mark.slow
@pretended
def test_a_model_captures_while_others_load_run_and_go(directory: Path, tmp_path: Path) -> None:
    """onnxruntime captures for the whole process: memory, waits and copies fail in all other threads, but for ours."""
    code = SEVERAL + (
        "models = {name: opened(name, 0) for name in ('fp16', 'fp32')}\n"
        "def captures():\n"
        "    for k in range(1, 400, 30): models['fp16'].encode(['a ' * k])\n"
        "def runs():\n"
        "    for _ in range(6): models['fp32'].encode(many)\n"
        "def comes_and_goes():\n"
        "    for _ in range(3):\n"
        "        passing = opened('fp32', 0); use(passing); passing.close(); del passing\n"
        "together(captures, runs, comes_and_goes)\n"
        "print(failed)\n"
    )
    printed, complained = fake_cuda.run(GPU_WHEEL, code, [directory], tmp_path, capture_ms=60)
    assert "fake CUDA" not in complained
    assert printed == "[]\n"
