"""Static INT8: what each layer's input looks like on real text, and the recipe that loses least.

Smoothing moves range from activations to weights (Xiao et al. 2022, arXiv:2211.10438); outlier channels are clipped and
their excess is added back in float (after Dettmers et al. 2022, arXiv:2208.07339); the mean error of each output is
taken off its bias (Nagel et al. 2019, arXiv:1906.04721). Every choice is the one with the smallest error of the layer's
output on a sample of tokens; the same texts and weights give the same recipe.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt import batching, native
from fastembed_rt.manifest import EMBEDDING, OUTPUTS
from fastembed_rt.paths import as_utf8
from fastembed_rt.session import SLOWER_FUSIONS, load_onnxruntime, tune

from .errors import InvalidInputError, UnsupportedCheckpointError
from .graph.cpu import CPU, around_attention
from .graph.graph import FLOAT, Graph, Value
from .graph.int8 import GroupRecipe, Recipe, group_key, quantize_weight
from .graph.target import Target
from .graph.weight import Array, Linear
from .graph.writer import write

SAMPLE = 1024  # tokens whose activations are kept to compare candidates on
BATCH_TOKENS = 1024
# Of texts as long as the model reads, in all and of the longest. Attention in float takes the square of a length: with
# 12 heads 0.4 CPU seconds and 230 MB a layer at 2,048 tokens, 6.5 seconds and 3.5 GB at 8,192.
LONG_TOKENS = 2_048
ENOUGH_LONG = 4  # texts that the model cuts: none are made where there are as many
WORD_CHARACTERS = 8  # a text without blanks is not one word
MOST_OUTPUTS = 8_192  # of a group of layers, on which candidates are compared
SEED = 0
CALIBRATION_FILES = (
    'pass a UTF-8 file with a text a line, a .jsonl file of strings or {"text": ...}, or a directory of such'
)
OUTLIERS = (0, 1, 2, 4)
CLIPS = (1.0, 0.93, 0.86, 0.8, 0.7, 0.6, 0.5, 0.4)
COARSE_CLIPS = (1.0, 0.8, 0.6, 0.4)
ALPHAS = (0.35, 0.5, 0.65, 0.8)
# More outlier channels must bring the squared error down to this share. Their product writes all outputs once more:
# little beside the integer product where that is long and narrow (down projections), much where it is short and wide.
WORTH_OUTLIERS, WORTH_WIDE_OUTLIERS = 0.85, 0.25
WORTH_SMOOTHING = 0.7  # a multiplication at run time must bring it down to this share
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]


@dataclass
class Observed:
    """The input of a group of layers over the calibration texts."""

    layers: Sequence[Linear]
    low: Floats  # (K,) smallest value of each channel
    high: Floats
    sample: Floats  # (n, K)
    free_smoothing: bool  # an output projection: smoothing folds into the value projection


@dataclass(frozen=True)
class Sample:
    """Tokenized texts as a graph takes them, and what it gives for them."""

    rows: Sequence[Ids]
    boundaries: Ids  # (rows,) see `batching.feeds`
    feeds: Callable[[Sequence[Ids], Sequence[str], int, Ids], batching.Feeds] = batching.feeds
    output: str = OUTPUTS[EMBEDDING]
    by_token: bool = False  # the output has a row for each token, not for each text
    mixed_lengths: bool = True  # False: padding changes what the graph gives, and it takes batches of one length only

    @classmethod
    def of(cls, rows: Sequence[Ids]) -> Sample:
        """Texts without prompts."""
        return cls(rows, np.zeros(len(rows), dtype=np.int64))


def calibration_texts(source: Path | None = None) -> list[str]:
    """Texts that ship with the package, or those of a file (.jsonl with strings or {"text"}, else a text a line).

    A directory stands for its .txt and .jsonl files in name order.

    Raises:
        InvalidInputError: no such file, or one that holds something else.
    """
    if source is None:
        lines = (resources.files(__package__) / "data" / "calibration.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line)["text"] for line in lines]
    files = sorted(source.glob("*.txt")) + sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    texts = []
    for file in files:
        try:
            for line in file.read_text(encoding="utf-8").splitlines():
                if line.strip():
                    entry = json.loads(line) if file.suffix == ".jsonl" else line
                    texts.append(entry["text"] if isinstance(entry, dict) else str(entry))
        except (OSError, ValueError, KeyError) as error:
            raise InvalidInputError(
                f"calibration texts {file} cannot be read ({error!r}); {CALIBRATION_FILES}"
            ) from error
    if not texts:
        raise InvalidInputError(f"{source} has no texts to calibrate with; {CALIBRATION_FILES}")
    return texts


def long_texts(texts: Sequence[str], max_length: int) -> list[str]:
    """Texts joined to some as long as the model reads, where they are shorter: ranges are seen at every length.

    Each has at least min(max_length, LONG_TOKENS) tokens before it is cut, all of them together about LONG_TOKENS.
    """
    length = min(max_length, LONG_TOKENS)
    ordered = sorted(dict.fromkeys(texts), key=_words, reverse=True)  # paragraphs before sentences
    if not ordered or sum(_words(text) >= max_length for text in ordered) >= ENOUGH_LONG:
        return []
    following = itertools.cycle(ordered)
    made = []
    for _ in range(min(max(LONG_TOKENS // length, 1), ENOUGH_LONG)):
        pieces: list[str] = []
        while sum(map(_words, pieces)) < length:
            pieces.append(next(following))
        made.append(" ".join(pieces))
    return made


def _words(text: str) -> int:
    return max(len(text.split()), len(text) // WORD_CHARACTERS, 1)


def probe(groups: dict[str, tuple[list[Value], Sequence[Linear]]], free: set[str], base: Target = CPU) -> Target:
    """The target, noting each group of layers, the values it reads, and whose smoothing folds into the values.

    Layers that are run several times (ALBERT's) read several values, all of which one recipe has to serve.
    """

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        groups.setdefault(group_key(layers), ([], list(layers)))[0].append(states)
        return base.linears(graph, states, layers)

    def balance(value: Linear, output: Linear) -> tuple[Linear, Linear]:
        free.add(group_key([output]))
        return value, output

    if base is not CPU:
        return replace(base, linears=linears)
    return replace(CPU, **around_attention(linears), balance=balance)


def observe(
    build: Callable[[Target], Graph], sample: Sample, held_out: Sample, threads: int, base: Target = CPU
) -> tuple[dict[str, Observed], Floats]:
    """Run the float graph over tokenized texts and watch the input of every group of layers.

    Returns:
        What was seen, by group, and the float vectors of the texts held out, to compare with.
    """
    groups: dict[str, tuple[list[Value], Sequence[Linear]]] = {}
    free: set[str] = set()
    graph = build(probe(groups, free, base))
    if not groups and base is not CPU:  # a static embedding still has its table
        raise UnsupportedCheckpointError(
            "the graph multiplies nothing with a matrix of weights: int8 has nothing to do"
        )
    values = list(dict.fromkeys(value for read, _ in groups.values() for value in read))
    for index, value in enumerate(values):
        rows = ("tokens",) if base is CPU else ("batch", "sequence")
        graph.output(value, f"probe.{index}", FLOAT, [f"{name}.{index}" for name in (*rows, "channels")])
    lengths = np.array([len(row) for row in sample.rows])
    random = np.random.default_rng(SEED)
    share = min(SAMPLE / max(int(lengths.sum()), 1), 1.0)
    seen: list[list[Any]] = [[None, None, []] for _ in values]
    names = [f"probe.{index}" for index in range(len(values))]
    for batch, outputs in _outputs(graph.ending_in(names), sample, names, threads) if names else ():
        chosen = random.random(int(lengths[batch].sum())) < share
        for entry, given in zip(seen, outputs, strict=True):
            states = _tokens(given, lengths[batch])
            low, high = states.min(axis=0), states.max(axis=0)
            entry[0] = low if entry[0] is None else np.minimum(entry[0], low)
            entry[1] = high if entry[1] is None else np.maximum(entry[1], high)
            # Some inputs have a row a text, not a token (one pooled token a text): few enough to keep all.
            entry[2].append(states[chosen] if len(states) == len(chosen) else states)
    with tempfile.TemporaryDirectory() as work:
        write(graph.ending_in([held_out.output]), Path(work), "whole.onnx", name="whole", metadata={})
        exact = vectors(Path(work) / "whole.onnx", held_out, threads)
    place = {value: index for index, value in enumerate(values)}
    found = {}
    for key, (read, layers) in groups.items():
        lows, highs, pieces = zip(*(seen[place[value]] for value in read), strict=True)
        states = np.concatenate([piece for own in pieces for piece in own])[:: len(read)]
        found[key] = Observed(layers, np.min(lows, axis=0), np.max(highs, axis=0), states, key in free)
    return found, exact


def _outputs(graph: Graph, sample: Sample, names: list[str], threads: int) -> Iterator[tuple[Ids, list[Floats]]]:
    """Outputs of a graph for each batch of a sample."""
    with tempfile.TemporaryDirectory() as work:
        write(graph, Path(work), "probe.onnx", name="probe", metadata={})
        yield from _run(_session(Path(work) / "probe.onnx", threads), sample, names)


def _tokens(states: Floats, lengths: Ids) -> Floats:
    """A row a token, (T, K), also of padded states, (B, S, K); any other rows as they are."""
    if states.shape[:-1] != (len(lengths), int(lengths.max())):
        return states.reshape(-1, states.shape[-1])
    tokens: Floats = states[np.arange(states.shape[1]) < lengths[:, None]]
    return tokens


def vectors(path: Path, sample: Sample, threads: int) -> Floats:
    """Vectors of tokenized texts from a packed graph."""
    return _vectors(_session(path, threads), sample)


def _session(path: Path, threads: int) -> Any:
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    tune(options, onnxruntime, "int8")
    if native.kernels() is not None:
        options.register_custom_ops_library(as_utf8(native.library()))
    return onnxruntime.InferenceSession(as_utf8(path), options, disabled_optimizers=SLOWER_FUSIONS)


def _run(session: Any, sample: Sample, names: list[str]) -> Iterator[tuple[Ids, list[Floats]]]:
    lengths = np.array([len(row) for row in sample.rows])
    needed = [entry.name for entry in session.get_inputs()]
    for batch in batching.plan(lengths, BATCH_TOKENS, mixed_lengths=sample.mixed_lengths):
        feeds = sample.feeds([sample.rows[k] for k in batch], needed, 0, sample.boundaries[batch])
        yield batch, session.run(names, feeds)


def _vectors(session: Any, sample: Sample) -> Floats:
    out: list[Any] = [None] * len(sample.rows)
    for batch, (found,) in _run(session, sample, [sample.output]):
        ends = np.cumsum([len(sample.rows[k]) if sample.by_token else 1 for k in batch])[:-1]
        for place, piece in zip(batch, np.split(found, ends), strict=True):
            out[place] = piece
    return np.concatenate(out)


def recipe(observed: Mapping[str, Observed]) -> tuple[Recipe, dict[str, float]]:
    """Recipe for the observed groups, and the relative error of each group's output."""
    groups, folds, errors = {}, {}, {}
    for key, seen in observed.items():
        group, errors[key] = best_group(seen)
        if seen.free_smoothing and group.smooth is not None:
            folds[key] = group.smooth
            group = replace(group, smooth=None)
        groups[key] = group
    return Recipe(groups=groups, folds=folds), errors


def best_group(seen: Observed) -> tuple[GroupRecipe, float]:
    """The candidate with the smallest squared error of the outputs, and that error relative to the outputs.

    Without smoothing and with the likeliest one: how many outlier channels, and how tight a clip.
    """
    # A vocabulary's worth of outputs: every n-th tells as much, in a share of the memory.
    step = -(-sum(layer.out_features for layer in seen.layers) // MOST_OUTPUTS)
    columns = [layer.weight.load().T[:, ::step] for layer in seen.layers]
    weight = np.concatenate(columns, axis=1).astype(np.float32)
    exact = seen.sample @ weight
    plain = Candidate.of(seen, weight, exact, None).best(OUTLIERS, CLIPS)
    smoothed = [Candidate.of(seen, weight, exact, alpha) for alpha in ALPHAS]
    likely = min(smoothed, key=lambda candidate: candidate.best((0,), COARSE_CLIPS)[0])
    found = likely.best(OUTLIERS, CLIPS)
    error, group = found if found[0] < plain[0] * (1.0 if seen.free_smoothing else WORTH_SMOOTHING) else plain
    power = float(np.vdot(exact, exact)) or 1.0
    return replace(group, bias_shift=_bias_shift(seen, group)), float(np.sqrt(error / power))


@dataclass(frozen=True)
class Candidate:
    """A group under one smoothing: its inputs, its rounded weights, and what rounding them costs."""

    sample: Floats  # (n, K)
    low: Floats
    high: Floats
    rounded: Floats  # (K, N)
    offset: Floats  # (n, N)
    smooth: Floats | None

    @classmethod
    def of(cls, seen: Observed, weight: Floats, exact: Floats, alpha: float | None) -> Candidate:
        """Smoothing s = max|x|^alpha / max|w|^(1 - alpha) per channel, with geometric mean 1; None for none."""
        sample, low, high, smooth = seen.sample, seen.low, seen.high, None
        if alpha is not None:
            top = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1e-5)
            log = alpha * np.log(top) - (1 - alpha) * np.log(np.maximum(np.abs(weight).max(axis=1), 1e-5))
            smooth = np.exp(log - log.mean()).astype(np.float32)
            sample, low, high, weight = sample / smooth, low / smooth, high / smooth, weight * smooth[:, None]
        values, scales = quantize_weight(weight)
        rounded = (values * scales).astype(np.float32)
        return cls(sample, low, high, rounded, sample @ rounded - exact, smooth)

    def best(self, outliers: Sequence[int], clips: Sequence[float]) -> tuple[float, GroupRecipe]:
        """Smallest squared error over the given numbers of outlier channels and clips, and its recipe."""
        channels = np.argsort(-np.maximum(np.abs(self.low), np.abs(self.high)), kind="stable")
        inputs, outputs = self.rounded.shape
        worth = WORTH_OUTLIERS if outputs * 2 <= inputs else WORTH_WIDE_OUTLIERS
        best: tuple[float, GroupRecipe] | None = None
        for count in outliers:
            rest = channels[count:]
            fewer = best  # more channels cost time, so they must be worth it against the best with fewer
            for clip in clips:
                bottom = min(float(self.low[rest].min()) * clip, 0.0)
                scale = max((max(float(self.high[rest].max()) * clip, 0.0) - bottom) / 255.0, 1e-8)
                group = GroupRecipe(
                    scale=float(np.float32(scale)),
                    zero_point=round(-bottom / scale),
                    smooth=self.smooth,
                    outliers=tuple(sorted(int(k) for k in channels[:count])),
                )
                lost = (dequantized(self.sample, group) - self.sample) @ self.rounded + self.offset
                error = float(np.vdot(lost, lost))
                if (fewer is None or error < fewer[0] * worth) and (best is None or error < best[0]):
                    best = error, group
        assert best is not None
        return best


def dequantized(sample: Floats, group: GroupRecipe) -> Floats:
    """What the graph makes of (smoothed) inputs: rounded, clipped, excess of the outlier channels added back."""
    steps = np.clip(np.rint(sample / np.float32(group.scale)) + group.zero_point, 0, 255) - group.zero_point
    out: Floats = (steps * np.float32(group.scale)).astype(np.float32)
    if group.outliers:
        channels = list(group.outliers)
        out[:, channels] += sample[:, channels] - np.clip(sample[:, channels], group.low, group.high)
    return out


def _bias_shift(seen: Observed, group: GroupRecipe) -> tuple[Array, ...]:
    sample = seen.sample if group.smooth is None else seen.sample / group.smooth
    inputs = dequantized(sample.astype(np.float32), group)
    shifts = []
    for layer in seen.layers:
        weight = layer.weight.load().T.astype(np.float32)
        smoothed = weight if group.smooth is None else weight * group.smooth[:, None]
        values, scales = quantize_weight(smoothed)
        shifts.append((seen.sample @ weight - inputs @ (values * scales)).mean(axis=0).astype(np.float32))
    return tuple(shifts)
