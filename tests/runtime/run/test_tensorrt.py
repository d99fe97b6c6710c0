"""TensorRT's engines: shapes told beforehand, kept whole, never rebuilt. Engines themselves only on a GPU."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, reference_vectors, save_sentence_transformers
from tolerances import REORDERED, close

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt.errors import InvalidInputError, ProviderUnavailableError
from fastembed_rt.files import ModelFiles
from fastembed_rt.manifest import Variant
from fastembed_rt.run import tensorrt
from fastembed_rt.run.contract import Facts, Output
from fastembed_rt.run.session import Session, load
from fastembed_rt.run.tensorrt import EngineCache, Profile, TensorrtSession, profiles
from fastembed_rt_export import pipeline
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.pipeline import ExportOptions


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("tensorrt") / "checkpoint")


@pytest.fixture(scope="module")
def directory(checkpoint: Path) -> Path:
    output = checkpoint.with_name("model")
    options = ExportOptions(output=output, targets=("tensorrt",), precisions=("fp32", "fp16"), verify=False)
    pipeline.export(str(checkpoint), options)
    return output


class Recorded:
    """An engine of the CPU, which notes what it was asked for."""

    def __init__(self, engine: Session) -> None:
        self._engine, self.shapes = engine, list[tuple[int, int]]()
        self.facts, self.handles = engine.facts, engine.handles

    def run(self, feeds: Any) -> Output:
        self.shapes.append(feeds["input_ids"].shape)
        return self._engine.run(feeds)

    def close(self) -> None:
        self._engine.close()


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., TensorrtSession]:
    """A session whose engines are the CPU provider's, in a cache of its own."""
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(tensorrt, "require_provider", lambda _: None)
    monkeypatch.setattr(tensorrt, "versions", lambda _: {"gpu": "none"})

    def open_engine(files: ModelFiles, variant: Variant, profile: Profile, cache: Path, _: Any) -> Recorded:
        (cache / f"tokens{profile.longest}.engine").write_text("engine")
        return Recorded(load(files, variant, provider="cpu", threads=1))

    monkeypatch.setattr(tensorrt, "open_engine", open_engine)

    def make(directory: Path, **options: Any) -> TensorrtSession:
        variant = manifest.read(directory).variants[0]
        files = ModelFiles(directory, variant.files)
        return tensorrt.load(files, variant, provider="tensorrt", threads=1, **options)

    return make


def test_profiles_cover_every_length_once_and_fill_a_batch() -> None:
    assert profiles(512, 16384) == (Profile(1, 32, 512), Profile(33, 128, 128), Profile(129, 512, 32))
    assert profiles(48, 1000) == (Profile(1, 32, 31), Profile(33, 48, 20))
    assert profiles(8192, 512)[-1] == Profile(2049, 8192, 1)
    for longest in (1, 32, 33, 300, 8192):
        made = profiles(longest, 4096)
        assert [length for entry in made for length in range(entry.shortest, entry.longest + 1)] == list(
            range(1, longest + 1)
        )


def test_the_provider_is_told_smallest_usual_and_largest_shapes() -> None:
    settings = Profile(33, 128, 64).settings(("input_ids", "attention_mask"))
    assert settings == {
        "trt_profile_min_shapes": "input_ids:1x33,attention_mask:1x33",
        "trt_profile_opt_shapes": "input_ids:64x128,attention_mask:64x128",
        "trt_profile_max_shapes": "input_ids:64x128,attention_mask:64x128",
    }


def test_an_engine_asks_for_its_precision_and_its_cache(directory: Path, tmp_path: Path) -> None:
    for variant in manifest.read(directory).variants:
        settings = tensorrt.engine_settings(variant, Profile(1, 32, 8), tmp_path)
        assert settings["trt_fp16_enable"] == ("1" if variant.precision == "fp16" else "0")
        assert settings["trt_engine_cache_path"] == settings["trt_timing_cache_path"] == str(tmp_path)


def test_batches_go_to_the_engine_of_their_length_in_parts_that_fit(
    directory: Path, on_cpu: Callable[..., TensorrtSession]
) -> None:
    session = on_cpu(directory, longest=48, batch_tokens=96)
    random = np.random.default_rng(0)
    variant = manifest.read(directory).variants[0]
    plain = load(ModelFiles(directory, variant.files), variant, provider="cpu", threads=1)
    for count, tokens in ((1, 1), (7, 20), (3, 32), (5, 40)):
        feeds = {
            "input_ids": random.integers(5, 100, (count, tokens)),
            "attention_mask": np.ones((count, tokens), np.int64),
        }
        close(session.run(feeds), plain.run(feeds), REORDERED)
    small, large = (engine for _, engine in session._buckets)
    warm = [(1, 1), (3, 32)], [(1, 33), (2, 48)]
    assert small.shapes == [*warm[0], (1, 1), (3, 20), (3, 20), (1, 20), (3, 32)]  # type: ignore[attr-defined]
    assert large.shapes == [*warm[1], (2, 40), (2, 40), (1, 40)]  # type: ignore[attr-defined]


def test_a_longer_text_than_any_engine_takes_is_refused(
    directory: Path, on_cpu: Callable[..., TensorrtSession]
) -> None:
    session = on_cpu(directory, longest=16)
    feeds = {name: np.ones((1, 17), np.int64) for name in session.facts.inputs}
    with pytest.raises(InvalidInputError, match="17 tokens does not fit the engines, which take 16"):
        session.run(feeds)


def test_engines_are_built_once_with_a_bar_and_then_found(
    directory: Path, on_cpu: Callable[..., TensorrtSession], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    on_cpu(directory, longest=48)
    assert "TensorRT: 100%" in capfd.readouterr().err
    (kept,) = (tmp_path / "cache" / "tensorrt").iterdir()
    assert sorted(file.name for file in kept.iterdir()) == ["sums.json", "tokens32.engine", "tokens48.engine"]
    on_cpu(directory, longest=48)
    assert capfd.readouterr().err == ""
    on_cpu(directory, longest=40)
    assert len(list((tmp_path / "cache" / "tensorrt").iterdir())) == 2  # other shapes, other engines


@pytest.mark.parametrize("change", ["gpu", "tensorrt", "onnxruntime"])
def test_engines_are_for_one_gpu_one_tensorrt_one_onnxruntime_and_one_graph(directory: Path, change: str) -> None:
    first, second = manifest.read(directory).variants
    facts = {"gpu": "NVIDIA L4", "tensorrt": "10.13.2", "onnxruntime": "1.31.1"}
    wanted = profiles(48, 512)
    key = tensorrt.cache_key(first, wanted, facts)
    assert key == tensorrt.cache_key(first, wanted, dict(reversed(facts.items())))
    assert key != tensorrt.cache_key(first, wanted, {**facts, change: "another"})
    assert key != tensorrt.cache_key(second, wanted, facts)
    assert key != tensorrt.cache_key(first, profiles(47, 512), facts)


# The cache


def building(content: str = "engine") -> tuple[Callable[[Path], str], list[bool]]:
    """What loads from a cache: builds where it is empty, notes whether it did, gives what it found."""
    built: list[bool] = []

    def load(cache: Path) -> str:
        built.append(not (cache / "a.engine").exists())
        if built[-1]:
            (cache / "a.engine").write_text(content)
        return (cache / "a.engine").read_text()

    return load, built


def test_a_cache_is_built_once(tmp_path: Path) -> None:
    load, built = building()
    cache = EngineCache(tmp_path / "deep" / "key")
    assert [cache.open(load) for _ in range(3)] == ["engine"] * 3
    assert built == [True, False, False]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "a.engine").write_text("enginf"),
        lambda folder: (folder / "a.engine").unlink(),
        lambda folder: (folder / "sums.json").write_text("{"),
        lambda folder: (folder / "sums.json").write_text("[]"),
        lambda folder: (folder / "sums.json").unlink(),
    ],
)
def test_a_damaged_cache_is_set_aside_and_built_again(tmp_path: Path, spoil: Callable[[Path], Any]) -> None:
    load, built = building()
    cache = EngineCache(tmp_path / "key")
    cache.open(load)
    spoil(tmp_path / "key")
    assert cache.open(load) == "engine"
    assert built == [True, True]
    assert cache.open(load) == "engine"
    assert built == [True, True, False]
    assert [path.suffix for path in tmp_path.iterdir() if path.name != "key"] == [".damaged"]


def test_engines_that_tensorrt_refuses_are_built_again(tmp_path: Path) -> None:
    load, built = building()
    cache = EngineCache(tmp_path / "key")
    cache.open(load)

    def picky(folder: Path) -> str:
        if (folder / "a.engine").exists():
            raise ProviderUnavailableError("cannot deserialize")
        return load(folder)

    assert cache.open(picky) == "engine"
    assert built == [True, True]


def test_a_build_that_fails_leaves_nothing_and_is_the_error(tmp_path: Path) -> None:
    def failing(folder: Path) -> None:
        (folder / "half.engine").write_text("")
        raise ProviderUnavailableError("no kernel")

    with pytest.raises(ProviderUnavailableError, match="no kernel"):
        EngineCache(tmp_path / "key").open(failing)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_named_with_the_variable_that_chooses_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match=r"cannot be kept in .*file.deep .*set FASTEMBED_RT_CACHE"):
        EngineCache(tmp_path / "file" / "deep" / "key").open(building()[0])


@pytest.mark.parametrize("step", ["write_text", "rename"])
def test_a_disk_that_is_full_behind_the_build_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """The engines are there by then, and there is no room for what says that they are whole."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cache = EngineCache(tmp_path / "cache" / "key")
    with monkeypatch.context() as patch, pytest.raises(InvalidInputError, match=r"cannot be kept in .*No space left"):
        load, _ = building()

        def built(folder: Path) -> str:
            made = load(folder)
            patch.setattr(Path, step, full)
            return made

        cache.open(built)
    assert list((tmp_path / "cache").iterdir()) == []
    assert cache.open(building()[0]) == "engine"


def test_of_damaged_engines_the_last_are_kept(tmp_path: Path) -> None:
    """A disk that damages them at every load is not filled up with them."""
    cache = EngineCache(tmp_path / "key")
    for _ in range(3):
        cache.open(building()[0])
        next((tmp_path / "key").glob("*.engine")).write_text("spoilt")
    cache.open(building()[0])
    assert len(list(tmp_path.glob("*.damaged"))) == 1
    assert sorted(path.name.partition(".")[0] for path in tmp_path.iterdir()) == ["key", "key"]


def test_of_two_builders_the_first_is_kept_and_both_go_on(tmp_path: Path) -> None:
    cache = EngineCache(tmp_path / "key")

    def slow(folder: Path) -> str:
        cache.open(building("first")[0])
        return building("second")[0](folder)

    assert cache.open(slow) == "second"
    assert cache.open(building()[0]) == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_a_run_that_fails_while_warming_up_names_the_profile() -> None:
    class Broken:
        facts = Facts(("input_ids",))

        def run(self, _: Any) -> None:
            raise RuntimeError("TensorRT EP failed to build\nmore")

    with pytest.raises(ProviderUnavailableError, match=r"did not run Profile\(.*\): TensorRT EP failed to build$"):
        tensorrt.warm_up(Broken(), Profile(1, 32, 4))  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_vectors_are_those_of_torch(
    directory: Path, checkpoint: Path, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path))
    try:
        model = EmbeddingModel(directory, provider="tensorrt", precision=precision)
    except ProviderUnavailableError as error:
        pytest.skip(str(error))
    with model:
        cosine, _ = distances(model.encode(TEXTS * 20), reference_vectors(checkpoint, TEXTS * 20))
    assert cosine.min() >= (0.9995 if precision == "fp16" else 0.99999)
