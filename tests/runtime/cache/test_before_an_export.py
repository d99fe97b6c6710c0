"""What would not run here, or what no model can have, is said before an export, which may take minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime
import pytest
from checkpoints import save_sentence_transformers

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ProviderUnavailableError
from fastembed_rt.run import nvidia


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("made") / "mine", max_seq_length=16)


def opened(checkpoint: Path, **options: Any) -> EmbeddingModel:
    return EmbeddingModel.from_checkpoint(checkpoint, **{"verify": False, **options})


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"provider": "cuda"}, ProviderUnavailableError, "provider 'cuda' is not in this onnxruntime"),
        ({"provider": "openvino"}, ProviderUnavailableError, "install onnxruntime-openvino"),
        (
            {"provider": "openvino", "precision": "int8"},
            InvalidInputError,
            "'openvino', for which there are fp32; int8",
        ),
        ({"device_ids": [0, 0]}, InvalidInputError, "each once"),
        ({"threads": 0}, InvalidInputError, "threads 0 is not possible"),
        ({"max_batch_tokens": -1}, InvalidInputError, "max_batch_tokens -1 is not possible"),
        ({"max_wait": -1}, InvalidInputError, "max_wait -1 is not possible"),
        ({"check_hashes": "no"}, InvalidTypeError, "check_hashes is str"),
    ],
)
def test_what_cannot_be_loaded_here_is_said_before_it_is_exported(
    checkpoint: Path,
    exports: list[str],
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(error, match=said):
        opened(checkpoint, **options)
    assert exports == []


@pytest.mark.parametrize(
    ("devices", "ids", "said"),
    [
        (
            (0, "there is no NVIDIA driver"),
            [0],
            r"provider 'cuda' does not run here \(no GPU: there is no NVIDIA driver",
        ),
        ((2, ""), [1, 2], r"does not run here \(no GPU 2: the driver shows 2"),
    ],
)
def test_gpus_that_are_not_there_are_missed_before_an_export(
    checkpoint: Path,
    exports: list[str],
    monkeypatch: pytest.MonkeyPatch,
    devices: tuple[int, str],
    ids: list[int],
    said: str,
) -> None:
    listed = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: listed)
    monkeypatch.setattr(nvidia, "failures", lambda names: dict.fromkeys(names, ""))
    monkeypatch.setattr(nvidia, "devices", lambda: devices)
    with pytest.raises(ProviderUnavailableError, match=said):
        opened(checkpoint, provider="cuda", device_ids=ids)
    assert exports == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"precision": "bf16"}, "'bf16' is computed by our own operators, which do not run here: no kernels"),
        ({"target": "native"}, "the operators of target 'native' do not run here: no kernels; leave target out"),
    ],
)
def test_operators_that_do_not_run_here_are_missed_before_an_export(
    checkpoint: Path, exports: list[str], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(native, "why_not", lambda: "no kernels")
    with pytest.raises(ProviderUnavailableError, match=said):
        opened(checkpoint, **options)
    assert exports == []
    with opened(checkpoint) as model:  # fp32 has operators of onnxruntime's own
        assert model.target == "cpu"


def test_commands_miss_a_provider_before_an_export(
    checkpoint: Path,
    tmp_path: Path,
    exports: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from fastembed_rt.cli import main

    texts = tmp_path / "texts.txt"
    texts.write_text("a cat\n", encoding="utf-8")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for command, rest in (("similar", ["a dog", "a cat"]), ("rerank", ["a dog", str(texts)]), ("bench", [])):
        asked = [command, str(checkpoint), *rest, "--provider", "cuda"]
        assert main(asked) == ProviderUnavailableError.exit_code
        assert "provider 'cuda' is not in this onnxruntime" in capsys.readouterr().err
    assert exports == []
