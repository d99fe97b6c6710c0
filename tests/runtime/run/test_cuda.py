"""Feeds of captured shapes, and the CUDA session itself: on onnxruntime-gpu with CUDA pretended, and on a real GPU."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoints import TEXTS, reference_vectors, save_sentence_transformers
from pretended import pretended_gpus
from tolerances import REORDERED, close

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import ProviderUnavailableError
from fastembed_rt.run import batching, cuda, staging
from fastembed_rt_export import pipeline
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.pipeline import ExportOptions

__all__ = ["pretended_gpus"]
ROOT = Path(__file__).parents[3]
GPU_WHEEL = os.environ.get("FASTEMBED_RT_GPU_WHEEL", "")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("cuda") / "checkpoint")


@pytest.fixture(scope="module")
def directory(checkpoint: Path) -> Path:
    """A model for cuda alone."""
    output = checkpoint.with_name("model")
    options = ExportOptions(
        output=output,
        targets=("cuda",),
        precisions=("fp32", "fp16"),
        verify=False,
    )
    pipeline.export(str(checkpoint), options)
    return output


@pytest.mark.parametrize(
    ("texts", "longest", "shape"),
    [
        (1, 1, (1, 16)),
        (1, 17, (1, 32)),
        (1, 512, (1, 512)),
        (1, 513, None),
        (2, 16, (4, 16)),
        (5, 128, (16, 128)),
        (5, 129, None),
        (17, 16, None),
    ],
)
def test_a_batch_takes_the_smallest_captured_shape_that_holds_it(
    texts: int, longest: int, shape: tuple[int, int] | None
) -> None:
    assert cuda.shape_for(texts, longest) == shape


@pytest.mark.parametrize("own_mask", [False, True])
def test_filling_up_changes_no_vector_and_gives_every_batch_of_a_shape_the_same_shapes(
    directory: Path, tmp_path: Path, own_mask: bool
) -> None:
    from packed_attention import evaluate

    if own_mask:
        prompts = {"query": "query: "}
        source = save_sentence_transformers(tmp_path / "c", include_prompt=False, prompts=prompts, pooling="cls")
        directory = tmp_path / "own"
        pipeline.export(
            str(source), ExportOptions(output=directory, targets=("cuda",), precisions=("fp32",), verify=False)
        )
    file = directory / "model.cuda.fp32.onnx"
    inputs = tuple(entry.name for entry in onnx.load(str(file)).graph.input)
    shapes = set()
    random = np.random.default_rng(0)
    for lengths in ((3, 16, 1), (5,), (9, 9, 2, 14)):
        rows = [random.integers(5, 100, length) for length in lengths]
        feeds = batching.feeds(rows, inputs, 0, np.array([length // 3 for length in lengths]))
        filled = cuda.filled(feeds, inputs, 4, 16)
        shapes.add(tuple((name, array.shape, array.dtype.str) for name, array in filled.items()))
        found = evaluate(file, filled)[: len(rows)]
        close(found, evaluate(file, feeds), REORDERED)
    assert len(shapes) == 1


def test_token_types_of_pairs_are_filled_up_too() -> None:
    rows = [np.arange(5, 12), np.arange(5, 8)]
    inputs = ("input_ids", "token_type_ids", "cumulative_sequence_length")
    feeds = {**batching.packed_for_cuda(rows, inputs), "token_type_ids": np.array([0] * 4 + [1] * 3 + [0, 1, 1])}
    filled = cuda.filled(feeds, inputs, 4, 16)
    assert filled["token_type_ids"].tolist() == [0] * 4 + [1] * 3 + [0, 1, 1] + [0] * 54
    assert filled["cumulative_sequence_length"].tolist() == [0, 7, 10, 11, 12]


@pytest.mark.usefixtures("pretended_gpus")
@pytest.mark.parametrize("device", [0, 3])
def test_a_device_is_named_where_it_is_not_the_first(
    directory: Path, monkeypatch: pytest.MonkeyPatch, device: int
) -> None:
    """Named, it has onnxruntime warn at every session; its default logger is told to keep quiet then, and no longer."""
    import onnxruntime

    said: list[Any] = []
    make = onnxruntime.InferenceSession

    def making(*arguments: Any, **options: Any) -> Any:
        said.append(options["providers"][0][1].get("device_id"))
        return make(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", making)
    monkeypatch.setattr(onnxruntime, "set_default_logger_severity", said.append)
    with EmbeddingModel(directory, provider="cuda", precision="fp32", device_ids=[device]) as model:
        model.encode("the cat")
    assert said == ([3, "3", 2] if device else [None])


@pytest.mark.usefixtures("pretended_gpus")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_all_inputs_of_a_batch_go_in_one_copy_and_the_vectors_come_in_one(directory: Path, precision: str) -> None:
    from pretended import Value

    with EmbeddingModel(directory, provider="cuda", precision=precision) as model:
        model.encode("the cat sleeps")  # captures
        Value.copies.clear()
        model.encode("a dog")
        assert Value.copies == ["in", "out"]
        many = [f"the cat sleeps {k}" for k in range(60)]
        model.encode(many)
        Value.copies.clear()
        model.encode(many)
        assert Value.copies == ["in"]  # onnxruntime writes the output to the host itself
        assert len(model.variant.inputs) > 3


def test_inputs_lie_one_after_the_other_where_any_kernel_can_read_them() -> None:
    feeds: batching.Feeds = {
        "a": np.arange(7),
        "b": np.arange(12, dtype=np.int32).reshape(3, 4),
        "c": np.zeros(0, np.int64),
        "d": np.array([[True, False]]),
    }
    layout = staging.Layout.of(feeds)
    assert {name: place[0] for name, place in layout.places.items()} == {"a": 0, "b": 256, "c": 512, "d": 512}
    assert layout.size == 768
    buffer = np.full(layout.size, 0xEE, np.uint8)
    layout.put(feeds, buffer)
    for name, (start, dtype, shape) in layout.places.items():
        found = buffer[start : start + feeds[name].nbytes].view(dtype).reshape(shape)
        np.testing.assert_array_equal(found, feeds[name])


def test_a_copy_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Runtime:
        cudaSetDevice = cudaHostRegister = cudaHostUnregister = staticmethod(lambda *_: 0)  # noqa: N815
        cudaGetLastError = staticmethod(lambda: 0)  # noqa: N815
        cudaMemcpy = staticmethod(lambda *_: 700)  # noqa: N815  an illegal address

    monkeypatch.setattr(staging, "cuda_runtime", Runtime)
    memory = staging.PinnedMemory(3)
    value = type("Value", (), {"data_ptr": lambda self: 256, "shape": lambda self: [2, 2]})()
    with pytest.raises(ProviderUnavailableError, match="does not copy a batch to or from device 3: 700"):
        memory.send(memory.allocate(16).array, value, 16)
    with pytest.raises(ProviderUnavailableError, match="700"):
        memory.fetch(value, memory.allocate(16))


def test_where_nothing_can_be_locked_onnxruntime_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine with CUDA's libraries and no driver for them."""
    from pretended import Value

    pending = [0]  # the thread's last error, which onnxruntime asks for after each of its kernels

    class Runtime:
        cudaSetDevice = staticmethod(lambda *_: 0)  # noqa: N815
        cudaGetLastError = staticmethod(pending.pop)  # noqa: N815

        @staticmethod
        def cudaHostRegister(*_: Any) -> int:  # noqa: N802
            pending.append(35)  # the driver is too old
            return 35

    monkeypatch.setattr(staging, "cuda_runtime", Runtime)
    memory = staging.PinnedMemory(0)
    before, buffer = memory.works, memory.allocate(16)
    assert (before, memory.works) == (True, False)
    assert pending == [0]
    value = Value.ortvalue_from_shape_and_type((16,), np.uint8, "cuda", 0)
    buffer.array[:] = np.arange(16)
    memory.send(buffer.array, value, 4)
    np.testing.assert_array_equal(value.array, np.arange(16))


def test_buffers_share_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA locks whole pages, and small arrays of numpy's lie beside each other."""
    import mmap

    locked: list[range] = []

    class Runtime:
        cudaSetDevice = cudaHostUnregister = staticmethod(lambda *_: 0)  # noqa: N815

        @staticmethod
        def cudaHostRegister(address: Any, size: Any, _: int) -> int:  # noqa: N802
            locked.append(range(address.value, address.value + size.value))
            return 0

    monkeypatch.setattr(staging, "cuda_runtime", Runtime)
    memory = staging.PinnedMemory(0)
    buffers = [memory.allocate(size) for size in (96, 1, 96, mmap.PAGESIZE, mmap.PAGESIZE + 1)]
    assert [len(buffer.array) for buffer in buffers] == [96, 1, 96, mmap.PAGESIZE, mmap.PAGESIZE + 1]
    for pages, buffer in zip(locked, buffers, strict=True):
        assert (pages.start % mmap.PAGESIZE, pages.stop % mmap.PAGESIZE) == (0, 0)
        assert buffer.array.ctypes.data == pages.start
        assert len(buffer.array) <= len(pages)
    assert len({page for pages in locked for page in pages[:: mmap.PAGESIZE]}) == 6
    del buffers


# With CUDA pretended


@pytest.mark.usefixtures("pretended_gpus")
def test_graphs_of_our_own_attend_to_each_text_by_itself(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the card: on Turing, onnxruntime's first choice is made for one length of the longest text each."""
    import onnxruntime

    said: list[Any] = []
    make = onnxruntime.InferenceSession

    def making(*arguments: Any, **options: Any) -> Any:
        said.append(options["providers"][0][1].get("sdpa_kernel"))
        return make(*arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", making)
    for target in ("cuda-native", "cuda"):
        EmbeddingModel(directory, provider="cuda", precision="fp16", target=target).close()
    assert said == ["3", None]


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc on Linux")
def test_sessions_bind_capture_and_replay_as_onnxruntime_wants_it(directory: Path, tmp_path: Path) -> None:
    """Numbers are undefined, calls are real: shapes, order of binding, page-locked buffers, many threads at once."""
    import fake_cuda

    code = (
        "import sys, threading, fastembed_rt\n"
        "model = fastembed_rt.EmbeddingModel(sys.argv[1], provider='cuda', precision=sys.argv[2], threads=4)\n"
        "print(model.encode('one').shape, model.encode(['a cat', 'a dog ' * 9]).shape)\n"
        "print(model.encode(['the cat sleeps ' * n for n in range(1, 60)] * 60).shape)\n"
        "calls = [threading.Thread(target=model.encode, args=(['a ' * k] * 3,)) for k in range(1, 40)]\n"
        "[call.start() for call in calls]; [call.join() for call in calls]\n"
        "(session,) = model._engine.sessions\n"
        "print(type(session).__name__, session.captured_shapes()[0], session.pinned)\n"
        "print(fastembed_rt.EmbeddingModel(sys.argv[1], provider='auto').provider_choice)\n"
        "try: fastembed_rt.EmbeddingModel(sys.argv[1], provider='cuda', device_ids=[1])\n"
        "except fastembed_rt.FastembedRtError as error: print(error, flush=True)"
    )
    for precision in ("fp16", "fp32"):
        printed, complained = fake_cuda.run(GPU_WHEEL, code, [directory, precision], tmp_path, timeout=120)
        assert "plugin EP" not in complained
        *said, automatic, refused = printed.splitlines()
        assert said == ["(24,) (2, 24)", "(3540, 24)", "CudaSession (1, 16) True"]
        assert automatic == "auto took cuda (the first choice)"
        assert refused.startswith("provider 'cuda' did not start (no GPU 1: the driver shows 1, counted from 0;")


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc on Linux")
@pytest.mark.parametrize("locks", [True, False])
def test_runs_go_on_where_no_memory_is_page_locked(directory: Path, tmp_path: Path, locks: bool) -> None:
    """The error of the lock is not taken for one of onnxruntime's kernels, and buffers share no page."""
    import fake_cuda

    code = (
        "import sys, fastembed_rt\n"
        "model = fastembed_rt.EmbeddingModel(sys.argv[1], provider='cuda', precision='fp16')\n"
        "print([model.encode(['the cat'] * texts).shape[0] for texts in range(1, 20)] == list(range(1, 20)))\n"
        "print(model._engine.sessions[0].pinned, flush=True)\n"
    )
    said, complained = fake_cuda.run(GPU_WHEEL, code, [directory], tmp_path, locks=locks)
    assert said.splitlines() == ["True", str(locks)]
    assert "fake CUDA refuses" not in complained
    assert "Non-zero status code" not in complained


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc on Linux")
@pytest.mark.parametrize("capability", [75, 80, 90, 120])
def test_attention_is_one_kernel_for_texts_of_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capability: int
) -> None:
    """As onnxruntime itself says: flash attention from sm_80 on, memory-efficient attention on Turing."""
    import fake_cuda

    changes: dict[str, Any] = {"hidden_size": 128, "num_attention_heads": 2, "max_position_embeddings": 514}
    source = save_sentence_transformers(tmp_path / "c", max_seq_length=512, **changes)
    pipeline.export(
        str(source), ExportOptions(output=tmp_path / "m", targets=("cuda",), precisions=("fp16",), verify=False)
    )
    monkeypatch.setenv("ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO", "1")
    monkeypatch.setenv("FASTEMBED_RT_CALIBRATE", "0")  # or threads print into each other's lines
    code = (
        "import sys, fastembed_rt\n"
        "model = fastembed_rt.EmbeddingModel(sys.argv[1], provider='cuda', precision='fp16')\n"
        "for words in (1, 30, 100, 500): model.encode(['a ' * words] * 40)\n"
        "print(model.variant.target, flush=True)\n"
    )
    said, _ = fake_cuda.run(GPU_WHEEL, code, [tmp_path / "m"], tmp_path, capability=capability)
    assert "cuda-native" in said
    kernels = set(re.findall(r"Operator=PackedMultiHeadAttention.*?SdpaKernel=([A-Z_]+)", said))
    assert kernels == {"EFFICIENT_ATTENTION" if capability < 80 else "FLASH_ATTENTION"}


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_vectors_are_those_of_torch(directory: Path, checkpoint: Path, precision: str) -> None:
    wanted = reference_vectors(checkpoint, TEXTS * 50)
    with EmbeddingModel(directory, provider="cuda", precision=precision) as model:
        together = model.encode(TEXTS * 50)
        single = np.stack([model.encode(text) for text in TEXTS])
        again = np.stack([model.encode(text) for text in TEXTS])
    for found, expected in ((together, wanted), (single, wanted[: len(TEXTS)])):
        cosine, _ = distances(found, expected)
        assert cosine.min() >= (0.9995 if precision == "fp16" else 0.99999)
    np.testing.assert_array_equal(single, again)


@pytest.mark.gpu
def test_a_replay_gives_what_a_run_gives(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddingModel(directory, provider="cuda", precision="fp32") as model:
        replayed = model.encode(["the cat sleeps", "a dog"])
        monkeypatch.setattr(cuda, "shape_for", lambda *_: None)
        run = model.encode(["the cat sleeps", "a dog"])
    close(replayed, run)


def test_the_cuda_session_costs_others_nothing(run_script: Any, model_dir: Path) -> None:
    code = "import sys; from fastembed_rt import EmbeddingModel; EmbeddingModel(sys.argv[1]).encode('a')\n"
    code += "print([name for name in ('fastembed_rt.run.cuda', 'fastembed_rt.run.tensorrt') if name in sys.modules])"
    assert run_script(code, model_dir).stdout == "[]\n"
