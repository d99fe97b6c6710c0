"""Execution: which variant runs under which provider, and the onnxruntime session that runs it.

Providers are a table and fail closed: what was asked for runs, or an error says what is missing. Outputs go by name.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import native
from .errors import InvalidInputError, MissingDependencyError, ModelFormatError, ProviderUnavailableError
from .manifest import Manifest, Variant
from .overflow import overflows

if TYPE_CHECKING:
    import onnxruntime

OUTPUT = "sentence_embedding"
# Add and LayerNormalization are several times faster apart than as SkipLayerNormalization.
SLOWER_FUSIONS = ["SkipLayerNormFusion"]
TUNED = ("native", "cpu")  # targets whose graphs are made of the operators that are wanted


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One execution provider: its name in onnxruntime, and the targets it runs, best first."""

    onnxruntime_name: str
    targets: tuple[str, ...]
    extra: str  # what to install for it
    options: Mapping[str, str] = field(default_factory=dict)


PROVIDERS = {
    "cpu": Provider(onnxruntime_name="CPUExecutionProvider", targets=("native", "cpu", "portable"), extra="cpu"),
    "cuda": Provider(onnxruntime_name="CUDAExecutionProvider", targets=("cuda", "portable"), extra="gpu"),
    "tensorrt": Provider(onnxruntime_name="TensorrtExecutionProvider", targets=("tensorrt", "portable"), extra="gpu"),
}


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


def provider_row(provider: str) -> Provider:
    """Row of the table.

    Raises:
        InvalidInputError: not in the table.
    """
    row = PROVIDERS.get(provider) if isinstance(provider, str) else None
    if row is None:
        raise InvalidInputError(f"provider {provider!r} is not known; known: {', '.join(PROVIDERS)}")
    return row


def choose_variant(
    manifest: Manifest, *, provider: str = "cpu", precision: str | None = None, target: str | None = None
) -> Variant:
    """Variant that runs: the precision asked for (else the default variant's), in the provider's best target.

    `target` asks for one of the targets instead of the best. Where our own operators do not run, `native` is not among
    the targets; asking for it is an error.

    Raises:
        InvalidInputError: the directory has no such precision.
        ModelFormatError: it has the precision, for other providers only.
        ProviderUnavailableError: `target` is "native", which does not run here.
    """
    row = provider_row(provider)
    if target == "native" and (reason := native.why_not()) is not None:
        raise ProviderUnavailableError(f"the operators of target 'native' do not run here: {reason}; leave target out")
    wanted = manifest.default.precision if precision is None else precision
    precisions = sorted({variant.precision for variant in manifest.variants})
    if wanted not in precisions:
        raise InvalidInputError(
            f"precision {wanted!r} is not in this model directory, which has {', '.join(precisions)}; "
            f"export it with --precision {wanted}"
        )
    runs = tuple(name for name in row.targets if name != "native" or native.kernels() is not None)
    suited = runs if target is None else tuple({target} & set(runs))
    fitting = [v for v in manifest.variants if v.precision == wanted and v.target in suited]
    if not fitting:
        targets = sorted({v.target for v in manifest.variants if v.precision == wanted})
        raise ModelFormatError(
            f"precision {wanted!r} is there for {', '.join(targets)}, not for provider {provider!r}"
            f"{f' and target {target!r}' if target else ''}; choose another precision or export again"
        )
    return min(fitting, key=lambda variant: row.targets.index(variant.target))


def available_providers() -> list[str]:
    """onnxruntime's providers, by its names, in its order of preference."""
    return list(load_onnxruntime().get_available_providers())


class Session:
    """One graph loaded into onnxruntime under one provider. Safe to run from several threads at once."""

    def __init__(self, directory: Path, variant: Variant, *, provider: str, threads: int, output: str = OUTPUT) -> None:
        """Load the graph, whose output of that name is wanted.

        Raises:
            MissingDependencyError: no onnxruntime.
            ProviderUnavailableError: this onnxruntime has no such provider, or the provider did not start.
            ModelFormatError: onnxruntime cannot read the graph.
        """
        row = provider_row(provider)
        onnxruntime = load_onnxruntime()
        available = list(onnxruntime.get_available_providers())
        if row.onnxruntime_name not in available:
            raise ProviderUnavailableError(
                f"provider {provider!r} is not in this onnxruntime ({', '.join(available)}); "
                f"install fastembed-rt[{row.extra}], or pass provider='cpu'"
            )
        path = directory / variant.graph.file
        options = _options(onnxruntime, threads, cpu=provider == "cpu")
        if variant.target in TUNED:
            tune(options, onnxruntime, variant.precision)
        if variant.target == "native":
            options.register_custom_ops_library(str(native.library()))
        try:
            self._session = onnxruntime.InferenceSession(
                str(path),
                sess_options=options,
                providers=[(row.onnxruntime_name, dict(row.options))],
                enable_fallback=False,
                disabled_optimizers=SLOWER_FUSIONS if variant.target in TUNED else None,
            )
        except Exception as error:  # onnxruntime raises its own kinds, all plain Exceptions
            reason = str(error).strip().splitlines()[0][:300]
            if provider != "cpu":
                raise ProviderUnavailableError(f"provider {provider!r} did not start: {reason}") from error
            raise ModelFormatError(f"onnxruntime {onnxruntime.__version__} cannot load {path}: {reason}") from error
        running = self._session.get_providers()
        if running[0] != row.onnxruntime_name:
            raise ProviderUnavailableError(
                f"provider {provider!r} was asked for and onnxruntime fell back to {running[0]}; "
                "run fastembed-rt doctor to see what is missing"
            )
        self._output = output
        self.inputs = tuple(entry.name for entry in self._session.get_inputs())
        if set(self.inputs) != set(variant.inputs):
            raise ModelFormatError(f"{path} takes {self.inputs}, the manifest says {variant.inputs}; export it again")

    @property
    def native(self) -> Any:
        """The object behind onnxruntime's Python session, which owns the threads."""
        return self._session._sess

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The output for one batch, feeds by input name: for vectors (B, dim)."""
        (vectors,) = self._session.run([self._output], dict(feeds))
        result: npt.NDArray[np.float32] = vectors
        return result


def tune(options: Any, onnxruntime: Any, precision: str) -> None:
    """Set what a graph made for the cpu target needs, but threads."""
    levels = onnxruntime.GraphOptimizationLevel
    # Made of the operators wanted; fusing them further made them slower, and costs time at every load.
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC
    if precision == "int8" and overflows(onnxruntime):
        # Kernels with unsigned weights: right, and slower. The rewrite belongs to the extended level.
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")


def _options(onnxruntime: Any, threads: int, *, cpu: bool) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Threads spin inside a run, where the next operator is microseconds away, and sleep between runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if cpu:
        # The arena keeps the largest batch's memory for good; without it memory goes back after each run.
        options.enable_cpu_mem_arena = False
    else:
        # Fail instead of running what the provider refuses on the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return options
