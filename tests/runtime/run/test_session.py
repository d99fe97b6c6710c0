"""Providers fail closed: what was asked for runs, or an error says what is missing; none takes another's place."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from checkpoints import save_sentence_transformers
from exports import quick

import fastembed_rt
from fastembed_rt import EmbeddingModel, manifest, native
from fastembed_rt.errors import InvalidInputError, MissingDependencyError, ModelFormatError, ProviderUnavailableError
from fastembed_rt.files import ModelFiles
from fastembed_rt.manifest import FileRecord, Manifest
from fastembed_rt.run.providers import OLDEST, too_old
from fastembed_rt.run.session import PROVIDERS, available_providers, choose_variant, load, provider_row

GPU_NAMES = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}
gpu_providers = pytest.mark.parametrize("provider", list(GPU_NAMES))
no_gpu_here = pytest.mark.skipif(
    bool(set(GPU_NAMES.values()) & set(onnxruntime.get_available_providers())), reason="this onnxruntime has GPUs"
)


@pytest.fixture(scope="module")
def described(model_dir: Path) -> Manifest:
    return manifest.read(model_dir)


def with_variants(described: Manifest, *variants: tuple[str, str], default: int = 0) -> Manifest:
    """The manifest with variants of these targets and precisions, none of which has a file."""
    made = tuple(
        dataclasses.replace(
            described.variants[0],
            graph=FileRecord(file=f"model.{target}.{precision}.onnx", size=1, sha256="0" * 64),
            weights=(),
            target=target,
            precision=precision,
        )
        for target, precision in variants
    )
    return dataclasses.replace(described, variants=made, default_variant=made[default].graph.file)


class StandInSession:
    """What onnxruntime gives when a provider's library does not load: a session on the CPU, and no exception."""

    asked: dict[str, Any]

    def __init__(self, path: str, sess_options: Any = None, providers: Any = None, **options: Any) -> None:
        StandInSession.asked = {"providers": providers, "session_options": sess_options, **options}

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]


class BrokenSession:
    def __init__(self, *_: Any, **__: Any) -> None:
        raise RuntimeError("Failed to load library libcudnn.so.9\nsecond line")


@pytest.fixture
def gpu_wheel(monkeypatch: pytest.MonkeyPatch) -> None:
    """An onnxruntime that lists GPU providers and then runs on the CPU."""
    names = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", StandInSession)


@pytest.mark.parametrize("provider", ["gpu", "", "CPU", "CPUExecutionProvider", None, ["cpu"], 5])
def test_an_unknown_provider_names_the_known_ones(model_dir: Path, provider: Any) -> None:
    with pytest.raises(InvalidInputError, match="is not known; known: cpu, cuda, tensorrt"):
        EmbeddingModel(model_dir, provider=provider)
    with pytest.raises(InvalidInputError, match="known: cpu, cuda, tensorrt"):
        provider_row(provider)


@no_gpu_here
@gpu_providers
def test_a_gpu_on_a_cpu_wheel_says_what_to_install(model_dir: Path, provider: str) -> None:
    with pytest.raises(ProviderUnavailableError) as caught:
        EmbeddingModel(model_dir, provider=provider)
    message = str(caught.value)
    assert f"provider '{provider}' is not in this onnxruntime" in message
    assert "CPUExecutionProvider" in message
    assert "install fastembed-rt[gpu], or pass provider='cpu'" in message


@pytest.mark.usefixtures("gpu_wheel")
@gpu_providers
def test_a_session_that_fell_back_to_the_cpu_is_an_error(model_dir: Path, provider: str) -> None:
    with pytest.raises(ProviderUnavailableError, match=r"fell back to CPUExecutionProvider.*doctor"):
        EmbeddingModel(model_dir, provider=provider, threads=3)
    asked = StandInSession.asked
    assert [name for name, _ in asked["providers"]] == [GPU_NAMES[provider]]
    assert asked["enable_fallback"] is False
    options = asked["session_options"]
    assert options.intra_op_num_threads == 3


@pytest.mark.usefixtures("gpu_wheel")
@gpu_providers
def test_a_graph_made_for_the_provider_runs_there_whole_and_others_as_far_as_it_can(
    model_dir: Path, described: Manifest, provider: str
) -> None:
    """CUDA has no kernel for the integer ArgMax of CLS pooling in a portable graph."""
    for target, entry in ((provider, "1"), ("portable", None)):
        (variant,) = with_variants(described, (target, "fp16")).variants
        variant = dataclasses.replace(variant, graph=described.variants[0].graph)
        with pytest.raises(ProviderUnavailableError, match="fell back"):
            load(ModelFiles(model_dir, variant.files), variant, provider=provider, threads=1)
        options = StandInSession.asked["session_options"]
        try:
            found = options.get_session_config_entry("session.disable_cpu_ep_fallback")
        except RuntimeError:  # how onnxruntime says that there is none
            found = None
        assert found == entry


@pytest.mark.usefixtures("gpu_wheel")
def test_a_gpu_that_does_not_start_gives_the_reason_in_one_line(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "InferenceSession", BrokenSession)
    with pytest.raises(ProviderUnavailableError, match=r"'cuda' did not start.*: Failed to load .*libcudnn") as caught:
        EmbeddingModel(model_dir, provider="cuda")
    assert "\n" not in str(caught.value)


def test_the_cpu_session_runs_on_the_cpu_alone(model_dir: Path, described: Manifest) -> None:
    for variant in described.variants:
        session = load(ModelFiles(model_dir, variant.files), variant, provider="cpu", threads=1)
        assert session.inference.get_providers() == ["CPUExecutionProvider"]
        assert set(session.facts.inputs) == set(variant.inputs)


def test_vectors_are_taken_by_name_from_the_session(model_dir: Path, described: Manifest) -> None:
    variant = choose_variant(described, target="portable")
    session = load(ModelFiles(model_dir, variant.files), variant, provider="cpu", threads=1)
    feeds = {"input_ids": np.array([[2, 5, 3]]), "attention_mask": np.ones((1, 3), np.int64)}
    vectors = session.run(feeds)
    assert vectors.shape == (1, described.dim)
    assert vectors.dtype == np.float32


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x07" * 40])
def test_a_graph_that_onnxruntime_cannot_read_is_named(tmp_path: Path, described: Manifest, content: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    variant = choose_variant(described, target="portable")
    with pytest.raises(ModelFormatError, match=rf"onnxruntime {onnxruntime.__version__} cannot load .*model\.onnx"):
        load(ModelFiles(tmp_path, variant.files), variant, provider="cpu", threads=1)


@pytest.mark.parametrize("version", ["1.20.0", "1.23.0", "0.9"])
def test_an_onnxruntime_that_is_too_old_is_told_in_a_sentence(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", version)
    with pytest.raises(MissingDependencyError) as caught:
        EmbeddingModel(model_dir)
    wanted = (
        f"onnxruntime {OLDEST} or newer is needed, and this is {version}; pip install --upgrade 'fastembed-rt[cpu]'"
    )
    assert str(caught.value).endswith(f".onnx cannot be run: {wanted}")


def test_a_provider_whose_onnxruntime_is_too_old_for_a_graph_says_so(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wheels of other providers are behind: what they run is run."""
    names = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: names)
    monkeypatch.setattr(onnxruntime, "InferenceSession", BrokenSession)
    monkeypatch.setattr(onnxruntime, "__version__", "1.20.0")
    with pytest.raises(MissingDependencyError, match=r"is 1\.20\.0; pip install --upgrade 'onnxruntime-openvino'"):
        EmbeddingModel(model_dir, provider="openvino")
    monkeypatch.setattr(onnxruntime, "__version__", OLDEST)
    with pytest.raises(ProviderUnavailableError, match="did not start: Failed to load library"):
        EmbeddingModel(model_dir, provider="openvino")


@pytest.fixture(scope="module")
def int8_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model directory in fp32 and INT8."""
    root = tmp_path_factory.mktemp("int8")
    quick(save_sentence_transformers(root / "checkpoint"), root / "model", precisions=("fp32", "int8"), min_cosine=0.5)
    return root / "model"


@pytest.mark.parametrize("target", ["cpu", "native"])
def test_int8_that_would_overflow_is_refused_where_onnxruntime_does_not_keep_it_from_that(
    int8_dir: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    """Our own operators do not overflow."""
    if target == "native" and native.kernels() is None:
        pytest.skip("our own operators do not run here")
    monkeypatch.setattr("fastembed_rt.run.overflow.overflows", lambda _: True)
    for version in ("1.30.0", "1.29.0"):
        monkeypatch.setattr(onnxruntime, "__version__", version)
        if (target, version) == ("cpu", "1.29.0"):
            with pytest.raises(MissingDependencyError, match=r"before onnxruntime 1\.30, and this is 1\.29\.0; pip"):
                EmbeddingModel(int8_dir, precision="int8", target=target)
        else:
            EmbeddingModel(int8_dir, precision="int8", target=target).close()
    EmbeddingModel(int8_dir, precision="fp32", target=target).close()


@pytest.mark.parametrize("version", [OLDEST, "1.24.0", "1.100", "2.0", "1.32.0.dev20261101", "1.24.0+cu13", "", "main"])
def test_a_version_that_is_not_before_the_oldest_is_taken(version: str) -> None:
    assert not too_old(version)


@pytest.mark.parametrize("name", ["EmbeddingModel", "EncodeStats"])
def test_without_onnxruntime_both_extras_are_named(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # how Python itself marks a module as not to be found
    with pytest.raises(MissingDependencyError) as caught:
        getattr(fastembed_rt, name)
    assert "fastembed-rt[cpu]" in str(caught.value)
    assert "fastembed-rt[gpu]" in str(caught.value)
    assert isinstance(caught.value, ImportError)
    with pytest.raises(MissingDependencyError):
        available_providers()


def test_import_from_without_onnxruntime_is_our_error(run_script: Any) -> None:
    done = run_script(
        "import sys; sys.modules['onnxruntime'] = None\n"
        "import fastembed_rt\n"
        "try:\n    from fastembed_rt import EmbeddingModel\n"
        "except fastembed_rt.FastembedRtError as error:\n    print(type(error).__name__, error)\n"
    )
    assert done.stdout.startswith("MissingDependencyError onnxruntime is not installed; pip install"), done.stderr


def test_onnxruntime_sends_nothing_unless_the_environment_asks_for_it(run_script: Any, model_dir: Path) -> None:
    code = "import os, sys; from fastembed_rt import EmbeddingModel; EmbeddingModel(sys.argv[1])\n"
    code += "print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert run_script(code, model_dir, ORT_DISABLE_TELEMETRY="0").stdout == "0\n"
    env = {"ORT_DISABLE_TELEMETRY": ""}
    assert run_script("import os; del os.environ['ORT_DISABLE_TELEMETRY']\n" + code, model_dir, **env).stdout == "1\n"


ALL = [("portable", "fp32"), ("cpu", "fp32"), ("cpu", "int8"), ("cuda", "fp16"), ("tensorrt", "fp16")]


@pytest.mark.parametrize(
    ("provider", "precision", "target", "wanted"),
    [
        ("cpu", None, None, "cpu.fp32"),
        ("cpu", "fp32", None, "cpu.fp32"),
        ("cpu", "fp32", "portable", "portable.fp32"),
        ("cpu", "int8", None, "cpu.int8"),
        ("cuda", None, None, "portable.fp32"),
        ("cuda", "fp16", None, "cuda.fp16"),
        ("tensorrt", "fp16", None, "tensorrt.fp16"),
    ],
)
def test_the_variant_is_of_the_precision_asked_for_and_made_for_the_provider(
    described: Manifest, provider: str, precision: str | None, target: str | None, wanted: str
) -> None:
    for order in (ALL, ALL[::-1]):
        choice = with_variants(described, *order, default=order.index(("portable", "fp32")))
        variant = choose_variant(choice, provider=provider, precision=precision, target=target)
        assert f"{variant.target}.{variant.precision}" == wanted


def test_no_precision_means_that_of_the_default_variant(described: Manifest) -> None:
    choice = with_variants(described, *ALL, default=ALL.index(("cpu", "int8")))
    assert choose_variant(choice).precision == "int8"


@pytest.mark.parametrize("precision", ["fp64", "FP32", "", 32])
def test_a_precision_that_is_not_there_names_those_that_are(described: Manifest, precision: Any) -> None:
    with pytest.raises(
        InvalidInputError, match="is not a precision; there are fp32, fp16, bf16, fp8 and int8;"
    ) as error:
        choose_variant(with_variants(described, *ALL), precision=precision)
    assert str(error.value).endswith("this model directory has fp32 (cpu), int8 (cpu) and fp16 (cuda, tensorrt)")


@pytest.mark.parametrize(
    ("provider", "precision", "runs", "others"),
    [
        ("cuda", "int8", "fp32, fp16, bf16 and fp8", "cpu"),
        ("cpu", "fp16", "fp32, bf16 and int8", "cuda or tensorrt"),
        ("tensorrt", "int8", "fp32 and fp16", "cpu"),
        ("openvino", "bf16", "fp32", "cpu or cuda"),
    ],
)
def test_a_precision_for_other_providers_only_is_refused(
    described: Manifest, provider: str, precision: str, runs: str, others: str
) -> None:
    said = (
        f"precision '{precision}' does not run with provider '{provider}', for which there are {runs}; "
        f".*; {precision} is for provider {others}"
    )
    variants = with_variants(described, *ALL, ("cuda", "bf16"))
    with pytest.raises(ModelFormatError, match=said):
        choose_variant(variants, provider=provider, precision=precision)


def test_a_precision_that_was_not_exported_names_the_export_that_makes_it(described: Manifest) -> None:
    """--precision fp16 alone would be refused: it is for other targets than the one that is taken by default."""
    with pytest.raises(InvalidInputError, match="export again with --target cuda --precision bf16"):
        choose_variant(with_variants(described, *ALL), provider="cuda", precision="bf16")
    with pytest.raises(InvalidInputError, match="export again with --target cpu --precision int8"):
        choose_variant(with_variants(described, ("cpu", "fp32")), precision="int8")


@pytest.mark.parametrize("target", ["cuda", "tensorrt", "metal"])
def test_a_target_that_the_provider_does_not_run_is_refused(described: Manifest, target: str) -> None:
    with pytest.raises(ModelFormatError, match=f"target '{target}'"):
        choose_variant(with_variants(described, *ALL), precision="fp32", target=target)


def test_every_provider_can_run_the_portable_graph() -> None:
    assert all(row.targets[-1] == "portable" for row in PROVIDERS.values())
