"""Execution providers as a table, the onnxruntime that has them, and what `provider="auto"` takes.

A provider asked for runs, or an error names what is missing (nvidia.py finds it); none takes another's place.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from ..errors import InvalidInputError, MissingDependencyError, ProviderUnavailableError
from ..records import record

OLDEST = "1.23.1"  # of onnxruntime, the first that runs what an export makes for CPUs; pyproject.toml asks for it
# Of onnxruntime, the first that keeps INT8 from overflowing where `overflows`: the ones before sum wrongly all the
# same, or end the process.
KEEPS_INT8 = "1.30"
AUTO = "auto"
AUTO_ORDER = ("cuda", "cpu")  # TensorRT builds engines for minutes, the others run parts of a graph: ask for them


@record(frozen=True, kw_only=True)
class Provider:
    """One execution provider: its name in onnxruntime, the targets it runs, best first, and how it wants to run."""

    onnxruntime_name: str
    targets: tuple[str, ...]
    extra: str = ""  # of this package that brings it
    wheel: str = ""  # that brings it where no extra does
    options: Mapping[str, str] = field(default_factory=dict)
    batch_tokens: int = 512  # measured on CPUs: 256 to 512 are fastest, one thread a batch; more leaves the caches
    runs_batches_itself: bool = False  # a batch fills the device: one session for all calls, threads only feed it

    @property
    def package(self) -> str:
        """What to install for it."""
        return f"fastembed-rt[{self.extra}]" if self.extra else self.wheel


PROVIDERS = {
    "cpu": Provider(onnxruntime_name="CPUExecutionProvider", targets=("native", "cpu", "portable"), extra="cpu"),
    "cuda": Provider(
        onnxruntime_name="CUDAExecutionProvider",
        targets=("cuda-native", "cuda", "portable"),
        extra="gpu",
        # float32 means float32: TF32 would round what pooling and fp32 graphs multiply to 10 bits. Strict mode
        # accumulates SkipLayerNormalization in float32, whatever its input is.
        options={"use_tf32": "0", "enable_skip_layer_norm_strict_mode": "1"},
        batch_tokens=16384,  # on an H200, 65,536 are 0.99 to 1.09 times as fast, in four times the memory
        runs_batches_itself=True,
    ),
    "tensorrt": Provider(
        onnxruntime_name="TensorrtExecutionProvider",
        targets=("tensorrt", "portable"),
        extra="gpu",
        batch_tokens=16384,  # as for cuda; TensorRT itself was not measured
        runs_batches_itself=True,
    ),
    # Passed through: the portable graph, as the provider takes it; what it does not take runs on the CPU.
    "openvino": Provider(
        onnxruntime_name="OpenVINOExecutionProvider", targets=("portable",), wheel="onnxruntime-openvino"
    ),
    "coreml": Provider(
        onnxruntime_name="CoreMLExecutionProvider", targets=("portable",), wheel="onnxruntime for macOS"
    ),
    "directml": Provider(
        onnxruntime_name="DmlExecutionProvider",
        targets=("portable",),
        wheel="onnxruntime-directml",
        runs_batches_itself=True,  # its sessions run one call at a time
    ),
}
NVIDIA = tuple(name for name, row in PROVIDERS.items() if row.extra == "gpu")  # nvidia.py is imported for them


def require_onnxruntime() -> None:
    """Raise MissingDependencyError, naming the extras, when no onnxruntime is installed; imports nothing."""
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingDependencyError(
            "onnxruntime is not installed; pip install 'fastembed-rt[cpu]' for CPUs "
            "or 'fastembed-rt[gpu]' for NVIDIA GPUs (one of them, not both)"
        )


def load_onnxruntime() -> Any:
    """The onnxruntime module, without its telemetry unless the environment asks for it.

    Release wheels since 1.32 start a thread that reports to Microsoft; a process that only wants vectors sends nothing.

    Raises:
        MissingDependencyError: not installed.
    """
    require_onnxruntime()
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def too_old(version: str, least: str = OLDEST) -> bool:
    """Whether a version of onnxruntime is before another; one that is no numbers is not."""
    found, wanted = ([int(number) for number in re.findall(r"\d+", text)[:3]] for text in (version, least))
    return bool(found) and found < wanted


def outdated(onnxruntime: Any, provider: str = "cpu") -> str:
    """That onnxruntime is too old, and what to install, for an error about a graph; "" where it is not."""
    if not too_old(onnxruntime.__version__):
        return ""
    package = provider_row(provider).package
    return (
        f"onnxruntime {OLDEST} or newer is needed, and this is {onnxruntime.__version__}; "
        f"pip install --upgrade '{package}'"
    )


def provider_row(provider: str) -> Provider:
    """Row of the table.

    Raises:
        InvalidInputError: not in the table.
    """
    row = PROVIDERS.get(provider) if isinstance(provider, str) else None
    if row is None:
        raise InvalidInputError(f"provider {provider!r} is not known; known: {', '.join(PROVIDERS)}, {AUTO}")
    return row


def available_providers() -> list[str]:
    """onnxruntime's providers, by its names, in its order of preference."""
    return list(load_onnxruntime().get_available_providers())


def require_provider(provider: str) -> Any:
    """onnxruntime, which has this provider, with the CUDA libraries that pip installed loaded where it wants them.

    Raises:
        MissingDependencyError: no onnxruntime.
        ProviderUnavailableError: an onnxruntime without the provider.
    """
    row = provider_row(provider)
    onnxruntime = load_onnxruntime()
    available = list(onnxruntime.get_available_providers())
    if row.onnxruntime_name not in available:
        from . import nvidia

        found = nvidia.wheel(provider, row.onnxruntime_name, available, row.package)
        raise ProviderUnavailableError(f"{found}, or pass provider='cpu'")
    if provider in NVIDIA:
        from . import nvidia

        nvidia.preload(onnxruntime)
    return onnxruntime


def explain(provider: str, onnxruntime: Any, device: int = 0) -> str:
    """What is nvidia, in brackets and with a blank in front, for an error about a provider that did not start."""
    if provider not in NVIDIA:
        return ""
    from . import nvidia

    found = nvidia.find(provider, onnxruntime, device)
    return f" ({found})" if found else ""


@record(frozen=True)
class Choice:
    """The provider that runs, and why."""

    provider: str
    why: str
    automatic: bool = False


def choose(provider: str, unsuited: Callable[[str], str | None], devices: Sequence[int] = (0,)) -> Choice:
    """The provider asked for; for "auto", the first of AUTO_ORDER that starts here and runs the model.

    A provider that "auto" took and that fails later is an error like any other: there is no second choice.

    Args:
        provider: name or "auto".
        unsuited: why a provider does not run the model, None if it does.
        devices: GPUs that are to run it.

    Raises:
        InvalidInputError: not in the table.
    """
    if provider != AUTO:
        provider_row(provider)
        return Choice(provider, "asked for")
    passed: list[str] = []
    for name in AUTO_ORDER:
        against = "" if name == "cpu" else obstacle(name, max(devices)) or unsuited(name)
        if not against:
            reason = "; ".join(passed) or "the first choice"
            return Choice(name, f"auto took {name} ({reason})", automatic=True)
        passed.append(f"not {name}: {against}")
    raise AssertionError("the CPU is always there")


def obstacle(provider: str, device: int = 0) -> str | None:
    """Why a provider other than the CPU does not run on a device, as far as that is known without starting it."""
    row = PROVIDERS[provider]
    onnxruntime = load_onnxruntime()
    available = list(onnxruntime.get_available_providers())
    if row.onnxruntime_name not in available:
        return f"not in this onnxruntime ({', '.join(available)})"
    if provider not in NVIDIA:
        return None
    from . import nvidia

    nvidia.preload(onnxruntime)
    found = nvidia.find(provider, onnxruntime, device)
    return found.what if found else None
