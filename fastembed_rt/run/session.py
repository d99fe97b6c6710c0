"""Execution: which variant runs under which provider, and the onnxruntime session that runs it.

The provider asked for runs (providers.py has the table), or an error says what is missing. Outputs go by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .. import native
from ..errors import (
    IntegrityError,
    InvalidInputError,
    MissingDependencyError,
    ModelFormatError,
    ProviderUnavailableError,
    first_line,
)
from ..files import ModelFiles
from ..manifest import Manifest, Variant
from ..native import cuda as native_cuda
from ..precisions import lacking, listed, possible
from ..system.paths import as_utf8
from . import shared_weights
from .batching import Feeds
from .contract import Facts, GraphSession, Output
from .providers import (
    KEEPS_INT8,
    NVIDIA,
    PROVIDERS,
    Provider,
    available_providers,
    explain,
    load_onnxruntime,
    outdated,
    provider_row,
    require_onnxruntime,
    require_provider,
    too_old,
)

if TYPE_CHECKING:
    import onnxruntime

__all__ = [
    "PROVIDERS",
    "Provider",
    "Session",
    "available_providers",
    "choose_variant",
    "load",
    "load_onnxruntime",
    "open_session",
    "provider_row",
    "require_onnxruntime",
    "tune",
]
OUTPUT = "sentence_embedding"
UNNORMALIZED = "sentence_embedding before its normalization"  # asked for as an output; see unnormalized.py
# Add and LayerNormalization are several times faster apart than as SkipLayerNormalization.
SLOWER_FUSIONS = ["SkipLayerNormFusion"]
# Targets with operators of our own -> why they do not run here, None where they do: precision, device -> reason.
OWN: dict[str, Callable[[str, int], str | None]] = {
    "native": lambda *_: native.why_not(),
    native_cuda.TARGET: lambda *asked: _why_not_on_cuda(*asked),  # noqa: PLW0108
}
TUNED = ("native", "cpu")  # targets whose graphs are made of the operators that are wanted


def choose_variant(
    manifest: Manifest,
    *,
    provider: str = "cpu",
    precision: str | None = None,
    target: str | None = None,
    devices: Sequence[int] = (0,),
) -> Variant:
    """Variant that runs: the precision asked for (else the default variant's), in the provider's best target.

    `target` asks for one of the targets instead of the best. Where our own operators do not run, `native` and
    `cuda-native` are not among the targets; asking for them is an error. On several `devices` one variant runs on all.

    Raises:
        InvalidInputError: the directory has no such precision.
        ModelFormatError: it has the precision, for other providers only.
        ProviderUnavailableError: `target` has operators of our own, or is the only one that has the precision, and they
            do not run here.
    """
    row = provider_row(provider)
    wanted = manifest.default.precision if precision is None else precision
    there = {variant.target for variant in manifest.variants if variant.precision == wanted}
    missing = {
        name: _against(name, wanted, devices)
        for name in OWN
        if name in row.targets and (name in there or name == target)
    }
    if target is not None and (reason := missing.get(target)) is not None:
        raise ProviderUnavailableError(
            f"the operators of target {target!r} do not run here: {reason}; leave target out"
        )
    if all(variant.precision != wanted for variant in manifest.variants):
        raise InvalidInputError(lacking(wanted, provider, row.targets, manifest.variants, manifest.refused))
    runs = tuple(name for name in row.targets if missing.get(name) is None)
    suited = runs if target is None else tuple({target} & set(runs))
    fitting = [v for v in manifest.variants if v.precision == wanted and v.target in suited]
    if not fitting:
        reason = next((missing[name] for name in row.targets if name in there and missing.get(name)), None)
        if reason is not None and target is None:
            raise ProviderUnavailableError(
                f"precision {wanted!r} is computed by our own operators, which do not run here: {reason}; take another "
                f"precision ({listed(dict.fromkeys(v.precision for v in manifest.variants))} are there)"
            )
        if target is None:
            raise ModelFormatError(lacking(wanted, provider, row.targets, manifest.variants, manifest.refused))
        targets = sorted({v.target for v in manifest.variants if v.precision == wanted})
        raise ModelFormatError(
            f"precision {wanted!r} is there for {', '.join(targets)}, not for provider {provider!r} and target "
            f"{target!r}; choose another precision or export again"
        )
    return min(fitting, key=lambda variant: row.targets.index(variant.target))


def require_running(provider: str, precision: str, target: str | None = None, devices: Sequence[int] = (0,)) -> None:
    """Raise where no graph of this precision would run, as far as that is known without a graph.

    Args:
        provider: of the table.
        precision: of those that the provider runs.
        target: of those that the provider runs; None: any of them.
        devices: the provider's numbers of those that are to run it.

    Raises:
        MissingDependencyError: no onnxruntime.
        ProviderUnavailableError: this onnxruntime has no such provider; a library or device is missing; the precision
            is computed by our own operators alone, which do not run here.
    """
    onnxruntime = require_provider(provider)
    for device in devices:
        if missing := explain(provider, onnxruntime, device):
            raise ProviderUnavailableError(f"provider {provider!r} does not run here{missing}")
    targets = [name for name in provider_row(provider).targets if target in (None, name)]
    against = [_against(name, precision, devices) for name in targets if precision in possible([name])]
    if against and all(against):
        raise ProviderUnavailableError(
            f"precision {precision!r} is computed by our own operators, which do not run here: {against[0]}; take "
            "another precision"
            if target is None
            else f"the operators of target {target!r} do not run here: {against[0]}; leave target out"
        )


def _against(target: str, precision: str, devices: Sequence[int]) -> str | None:
    """Why the operators of a target do not run on one of the devices; None where they do, or are not our own."""
    why = OWN.get(target)
    return None if why is None else next(filter(None, (why(precision, device) for device in devices)), None)


class Session:
    """A graph loaded into onnxruntime, run as it comes. Safe to run from several threads at once."""

    def __init__(
        self,
        inference: onnxruntime.InferenceSession,
        output: str,
        facts: Facts,
        check: Callable[[], None] | None = None,
    ) -> None:
        """`output` is the name of the one that is wanted; `check` raises where its numbers are not to be trusted."""
        self.inference, self.output, self.facts, self._check = inference, output, facts, check

    @property
    def handles(self) -> tuple[object, ...]:
        """The object behind onnxruntime's Python session, which owns the threads."""
        return (self.inference._sess,)

    def run(self, feeds: Feeds) -> Output:
        """The output for one batch, feeds by input name: for vectors (B, dim).

        Raises:
            IntegrityError: weights that are read from their file were written to since the model was loaded.
        """
        (made,) = self.inference.run([self.output], feeds)
        output: Output = made
        if self._check is not None:
            self._check()
        return output

    def close(self) -> None:
        """It has no threads but onnxruntime's, which go with it."""


class NvidiaSession(Session):
    """One on a GPU, which sessions that capture graphs meanwhile do not hold up."""

    def run(self, feeds: Feeds) -> Output:
        """As Session's."""
        with _apart():
            return super().run(feeds)


def load(
    files: ModelFiles,
    variant: Variant,
    *,
    provider: str,
    threads: int,
    output: str = OUTPUT,
    device: int = 0,
    settings: Mapping[str, str] | None = None,
) -> Session:
    """A graph loaded under one provider.

    Args:
        files: the model's.
        variant: whose graph it is.
        provider: of the table.
        threads: of the session.
        output: name of the output that is wanted.
        device: a number of the provider's.
        settings: options of the provider beside those of its row and the device.

    Raises:
        IntegrityError: the files are no longer what they were when `files` was opened.
        MissingDependencyError: no onnxruntime, or one that is too old.
        ProviderUnavailableError: this onnxruntime has no such provider, or the provider did not start.
        ModelFormatError: onnxruntime cannot read the graph.
    """
    row = provider_row(provider)
    onnxruntime = require_provider(provider)
    path = files.directory / variant.graph.file
    old = outdated(onnxruntime, provider)
    if old and provider == "cpu":  # not only where the graph does not load: 1.23.0 makes NaN of some
        raise MissingDependencyError(f"{path} cannot be run: {old}")
    place = as_utf8(path)
    # Without a device_id where it is the first: asked for one, onnxruntime looks for a plugin before the provider that
    # it has, and warns at every session that there is none.
    options = {**row.options, **({"device_id": str(device)} if device else {}), **(settings or {})}

    names = {"output": output}

    def start(source: str | bytes, weights: Mapping[str, bytes]) -> Any:
        if output == UNNORMALIZED:
            assert isinstance(source, bytes)
            from .unnormalized import with_unnormalized  # for few models

            source, names["output"] = with_unnormalized(source, OUTPUT)
        return _start(onnxruntime, source, weights, row=row, settings=options, variant=variant, threads=threads)

    if variant.target == "native":
        shared_weights.share()
    try:
        by_path = output != UNNORMALIZED
        with _apart() if provider in NVIDIA else nullcontext():
            inference, by_path = _load_from(files, variant, onnxruntime, place if by_path else None, start)
    except (IntegrityError, MissingDependencyError, ModelFormatError):
        raise
    except Exception as error:  # onnxruntime's own kinds are plain Exceptions; models load on threads of their own,
        # so that this is no time limit of a caller
        reason, found = first_line(error), explain(provider, onnxruntime, device)
        if old and not found:
            raise MissingDependencyError(f"{path} cannot be run: {old}") from error
        if provider != "cpu":
            why = f"provider {provider!r} did not start{found}: {reason}"
            raise ProviderUnavailableError(why) from error
        raise ModelFormatError(f"onnxruntime {onnxruntime.__version__} cannot load {path}: {reason}") from error
    running = inference.get_providers()
    if running[0] != row.onnxruntime_name:
        raise ProviderUnavailableError(
            f"provider {provider!r} was asked for and onnxruntime fell back to {running[0]}"
            f"{explain(provider, onnxruntime, device)}; run fastembed-rt doctor to see what is missing"
        )
    missing = explain(provider, onnxruntime, device)  # cuDNN is opened by the first operator that wants it
    if missing:
        raise ProviderUnavailableError(f"provider {provider!r} starts here and does not run{missing}")
    inputs = tuple(entry.name for entry in inference.get_inputs())
    if set(inputs) != set(variant.inputs):
        raise ModelFormatError(f"{path} takes {inputs}, the manifest says {variant.inputs}; export it again")
    # Our own operators fill no row up to a longer one's length, as stock attention does, and all sessions of a process
    # share the packed weights.
    own = variant.target == "native"
    facts = Facts(inputs, padded=not own, takes_all=row.runs_batches_itself, light=own)
    if provider in NVIDIA:
        return NvidiaSession(inference, names["output"], facts)  # with a copy of the weights
    mapped = [record.file for record in variant.weights] if by_path else []
    return Session(inference, names["output"], facts, partial(files.check_mapped, mapped) if mapped else None)


def _start(
    onnxruntime: Any,
    source: str | bytes,
    weights: Mapping[str, bytes],
    *,
    row: Provider,
    settings: Mapping[str, str],
    variant: Variant,
    threads: int,
) -> onnxruntime.InferenceSession:
    """The session of a graph by its path, or by its content with that of its weights' files."""
    on_cpu = row is PROVIDERS["cpu"]
    options = _options(onnxruntime, threads, cpu=on_cpu)
    integers = (variant.target, variant.precision) == ("cpu", "int8")
    if integers:
        require_int8(onnxruntime)
    if variant.target in TUNED:
        tune(options, onnxruntime, integers=integers)
    if variant.target == "native":
        options.register_custom_ops_library(as_utf8(native.library()))
    if variant.target == native_cuda.TARGET:
        from . import cuda_operators

        options.register_custom_ops_library(as_utf8(cuda_operators.opened()))
    if not on_cpu and variant.target != "portable":
        # All of a graph made for the provider runs there, or none. Portable graphs have nodes that only the CPU has
        # kernels for, such as the integer ArgMax of CLS pooling.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if weights:
        lengths = [len(content) for content in weights.values()]
        options.add_external_initializers_from_files_in_memory([*weights], [*weights.values()], lengths)
    with without_plugin_warning(onnxruntime) if "device_id" in settings else nullcontext():
        session = onnxruntime.InferenceSession(
            source,
            sess_options=options,
            providers=[(row.onnxruntime_name, dict(settings))],
            enable_fallback=False,
            disabled_optimizers=SLOWER_FUSIONS if variant.target in TUNED else None,
        )
    if variant.target == "native":
        shared_weights.report()
    return session


@contextmanager
def without_plugin_warning(onnxruntime: Any) -> Iterator[None]:
    """Keep onnxruntime from warning that a device has no plugin: see `load`.

    Its default logger says it, whatever the session's is told. That one goes back to warnings, which is where
    onnxruntime has it; what it was set to cannot be asked.
    """
    onnxruntime.set_default_logger_severity(3)
    try:
        yield
    finally:
        onnxruntime.set_default_logger_severity(2)


# Graphs that run in ways of their own: by provider and target the module whose `load` makes the session, when used.
SPECIAL = {
    ("cuda", "cuda"): "cuda",
    ("cuda", native_cuda.TARGET): "cuda",
    ("tensorrt", "tensorrt"): "tensorrt",
    ("tensorrt", "portable"): "tensorrt",  # shapes of a graph for anything must be told as well
}


def _load_from(
    files: ModelFiles,
    variant: Variant,
    onnxruntime: Any,
    place: str | None,
    start: Callable[[str | bytes, Mapping[str, bytes]], onnxruntime.InferenceSession],
) -> tuple[onnxruntime.InferenceSession, bool]:
    """The session made of a variant's files as they were opened: by path, while `place` leads to them, else by content.

    None for `place` is by content in any case.

    By path, which is the second result, onnxruntime maps weights that it would copy otherwise.
    """
    names = [record.file for record in variant.files]
    files.check_unwritten(names)
    if place is not None and files.in_place(names):
        try:
            made = start(place, {})
        except Exception:
            if files.in_place(names):
                raise
        else:
            if files.in_place(names):  # and so they were between
                files.check_unwritten(names)
                return made, True
    if variant.weights and not hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"):
        if place is None:
            raise MissingDependencyError(
                f"vectors before their normalization need onnxruntime 1.24 or newer, and this is "
                f"{onnxruntime.__version__}; pip install --upgrade onnxruntime"
            )
        raise IntegrityError(
            f"{files.directory} was moved or replaced since the model was loaded, and onnxruntime "
            f"{onnxruntime.__version__} opens its weights by path only; load the model again"
        )
    weights = {record.file: files.read(record.file) for record in variant.weights}
    return start(files.read(variant.graph.file), weights), False


def _followed() -> None:
    """Never called: tools that build programs put into them what is imported somewhere, and follow no names."""
    from . import cuda, tensorrt  # noqa: F401


def open_session(
    files: ModelFiles, variant: Variant, *, provider: str, longest: int, batch_tokens: int, **options: Any
) -> GraphSession:
    """The session for a variant under a provider; options and errors as for `load`.

    No text has more than `longest` tokens, no batch more than `batch_tokens`: GPUs want to know.
    """
    module = SPECIAL.get((provider, variant.target))
    if module is not None and options.get("output") == UNNORMALIZED:
        raise InvalidInputError(
            f"target {variant.target} under provider {provider!r} gives normalized vectors alone; for vectors of any "
            "length export the checkpoint with: fastembed-rt export --no-normalize"
        )
    if module is None:
        return load(files, variant, provider=provider, **options)
    options["longest"] = longest
    if provider == "tensorrt":
        options["batch_tokens"] = batch_tokens
    made: GraphSession = import_module(f".{module}", __package__).load(files, variant, provider=provider, **options)
    return made


def require_int8(onnxruntime: Any) -> None:
    """Raise MissingDependencyError where INT8 on onnxruntime's operators overflows, and nothing keeps it from that."""
    if too_old(onnxruntime.__version__, KEEPS_INT8) and _overflows(onnxruntime):
        raise MissingDependencyError(
            f"INT8 on onnxruntime's operators overflows on this processor before onnxruntime {KEEPS_INT8}, and "
            f"this is {onnxruntime.__version__}; pip install --upgrade onnxruntime, or take precision 'fp32'"
        )


def tune(options: Any, onnxruntime: Any, *, integers: bool) -> None:
    """Set what a graph for CPUs needs, but threads. `integers`: it may have onnxruntime's own products of integers."""
    levels = onnxruntime.GraphOptimizationLevel
    # Made of the operators wanted; fusing them further made them slower, and costs time at every load.
    options.graph_optimization_level = levels.ORT_ENABLE_BASIC
    if integers and _overflows(onnxruntime):
        # Kernels with unsigned weights: right, and slower. The rewrite belongs to the extended level.
        options.graph_optimization_level = levels.ORT_ENABLE_EXTENDED
        options.add_session_config_entry("session.x64quantprecision", "1")


# What a graph needs that is on a GPU, or has onnxruntime's products of integers, is imported for it.
def _overflows(onnxruntime: Any) -> bool:
    from .overflow import overflows

    return overflows(onnxruntime)


def _why_not_on_cuda(precision: str, device: int) -> str | None:
    from . import cuda_operators

    return cuda_operators.why_not(precision, device)


def _apart() -> AbstractContextManager[None]:
    from .captures import apart

    return apart()


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
        options.enable_mem_pattern = False  # DirectML asks for it; shapes change with every batch anyway
    return options
