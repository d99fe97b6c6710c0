"""A checkpoint as its author meant it: config, module chain, prompts, limits; read from a directory, no code is run.

Reads what sentence-transformers writes (modules.json and the modules' folders) and plain transformers directories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from fastembed_rt.manifest import EMBEDDING, SIMILARITIES

from . import optimum_exporter
from . import static as static_module
from .architectures import ARCHITECTURES, Architecture, architecture, row_name
from .errors import CheckpointError, InvalidInputError, UnsupportedCheckpointError
from .files import read_json
from .routes import Chain, describe, read_routes
from .static import read_static
from .tensors import Stored, Tensors, read

POOLING_MODES = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
# The flags that older sentence-transformers wrote, in the order in which it concatenates them.
_POOLING_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# torch.nn classes by their last name -> the name that transformers' ACT2FN gives the function.
_ACTIVATIONS = {
    "Identity": "linear",
    "Tanh": "tanh",
    "ReLU": "relu",
    "GELU": "gelu",
    "Sigmoid": "sigmoid",
    "SiLU": "silu",
}
_TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)


@dataclass(frozen=True)
class Dense:
    """A linear layer on the sentence embedding, with an activation."""

    tensors: Tensors
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool

    def __str__(self) -> str:
        return f"Dense({self.inputs} -> {self.outputs}, {self.activation})"


@dataclass(frozen=True)
class LayerNorm:
    """A layer normalization of the sentence embedding."""

    tensors: Tensors
    dim: int

    def __str__(self) -> str:
        return f"LayerNorm({self.dim})"


@dataclass(frozen=True)
class Normalize:
    """Division by the L2 norm."""

    def __str__(self) -> str:
        return "Normalize"


@dataclass(frozen=True)
class Truncate:
    """The first numbers of each vector (Matryoshka); shorter vectors stay as they are."""

    dim: int

    def __str__(self) -> str:
        return f"Truncate({self.dim})"


Head = Dense | LayerNorm | Normalize | Truncate


class TaskHead(Protocol):
    """What follows the encoder where vectors of texts are not what is wanted."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The chain behind the transformer for people to read."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says of itself."""

    path: Path  # of the transformer: config.json, weights, tokenizer
    root: Path  # of the whole checkpoint
    name: str
    revision: str | None
    config: Mapping[str, Any]
    architecture: Architecture
    stored: Mapping[str, Stored]
    weight_files: tuple[Path, ...]
    pooling: tuple[str, ...]
    include_prompt: bool
    heads: tuple[Head, ...]
    max_length: int  # tokens, special tokens included
    lower_case: bool  # sentence-transformers' own do_lower_case, before the tokenizer's normalizer
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)  # said against tokenizer_config.json
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    similarity: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    task: str = EMBEDDING
    trusted: bool = False  # code of its own may be run, to compare with
    markers: tuple[str, ...] = ()  # tokens in front of texts, each to be one token also in the midst of text
    route: str | None = None  # name of this encoder in the checkpoint's Router
    routes: Mapping[str, Checkpoint] = field(default_factory=dict)  # "query", "document" where they have another one
    head: TaskHead | None = None  # of another task than embedding: what its own module builds and describes

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers."""
        return str(self.config["model_type"])

    @property
    def is_static(self) -> bool:
        """Whether there is no transformer, only a vector for each token."""
        return self.architecture is static_module.ARCHITECTURE

    @property
    def normalize(self) -> bool:
        """Whether vectors leave with unit length."""
        return bool(self.heads) and isinstance(self.heads[-1], Normalize)

    @property
    def modules(self) -> tuple[str, ...]:
        """The chain for people to read."""
        if self.head is not None:
            return (f"Transformer({self.model_type})", *self.head.modules)
        if self.is_static:
            return (f"StaticEmbedding({self.config['vocab_size']} tokens)", *map(str, self.heads))
        kind = "+".join(self.pooling)
        return (f"Transformer({self.model_type})", f"Pooling({kind})", *map(str, self.heads))

    def tensors(self) -> Tensors:
        """The encoder's tensors, with the task model's prefix taken off when there is one."""
        prefix = self.architecture.prefix
        inside = any(name.startswith(prefix) for name in self.stored)
        return Tensors(self.stored, prefix if inside else "")


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the user says against the checkpoint; None leaves the checkpoint's word."""

    pooling: tuple[str, ...] | None = None
    normalize: bool | None = None
    max_length: int | None = None
    prompts: Mapping[str, str] | None = None
    default_prompt_name: str | None = None
    truncate_dim: int | None = None


def load(root: Path, name: str, revision: str | None = None, *, exporter: str = "auto") -> Checkpoint:
    """Read the checkpoint in directory `root`; weights stay in their files.

    Args:
        root: directory of the checkpoint.
        name: what the manifest calls it.
        revision: commit on the hub.
        exporter: "builder" for the architectures built here, "optimum" to trace, "auto" to trace what has no builder.

    Raises:
        CheckpointError: damaged, incomplete or contradictory.
        UnsupportedCheckpointError: sound, with something that the export cannot build.
    """
    if not (root / "modules.json").is_file():
        notes = ["no modules.json: mean pooling without normalization, as sentence-transformers does"]
        return assemble(root, root, name, revision, notes, exporter=exporter, pooling=("mean",))
    routes = read_routes(root)
    where = "modules.json" if routes.name is None else f"route {routes.name!r}"
    made = _load_chain(root, routes.default, name, revision, exporter, list(routes.notes), where)
    if not routes.others:
        return replace(made, route=routes.name)
    others = {
        role: replace(_load_chain(root, chain, name, revision, exporter, [], f"route {route!r}"), route=route)
        for role, (route, chain) in routes.others.items()
    }
    return replace(made, route=routes.name, routes=others)


def _load_chain(
    root: Path, chain: Chain, name: str, revision: str | None, exporter: str, notes: list[str], where: str
) -> Checkpoint:
    kinds = [kind for kind, _ in chain]
    static = kinds[:1] == ["StaticEmbedding"]
    if not static and kinds[:2] != ["Transformer", "Pooling"]:
        raise UnsupportedCheckpointError(
            f"{where} begins with {describe(chain[:2])}; built are Transformer and Pooling, or StaticEmbedding, "
            "then Dense, LayerNorm, Dropout and Normalize in any order"
        )
    rest = chain[1:] if static else chain[2:]
    pooling, include_prompt = (("mean",), True) if static else _pooling(chain[1][1])
    return assemble(
        root,
        chain[0][1],
        name,
        revision,
        notes,
        exporter=exporter,
        static=static,
        pooling=pooling,
        include_prompt=include_prompt,
        heads=tuple(head for kind, folder in rest for head in module_head(kind, folder)),
        weighted=[folder for kind, folder in rest if kind in ("Dense", "LayerNorm")],
    )


def assemble(
    root: Path,
    path: Path,
    name: str,
    revision: str | None,
    notes: list[str],
    *,
    exporter: str = "auto",
    static: bool = False,
    pooling: tuple[str, ...] = (),
    include_prompt: bool = True,
    heads: tuple[Head, ...] = (),
    weighted: Sequence[Path] = (),
    similarities: Sequence[str] = SIMILARITIES,
) -> Checkpoint:
    """The checkpoint whose transformer is in `path`, with what stands beside it.

    Args:
        root: directory of the whole checkpoint.
        path: directory of its transformer.
        name: what the manifest calls it.
        revision: commit on the hub.
        notes: what a reader should know so far.
        exporter: see `load`.
        static: whether a StaticEmbedding stands in for the transformer.
        pooling: modes.
        include_prompt: whether prompts are pooled.
        heads: what follows the pooling.
        weighted: directories of modules with weights of their own.
        similarities: names that the task knows, its default first.

    Raises:
        CheckpointError, UnsupportedCheckpointError: see `load`.
    """
    config, row, stored, weight_files = (_static if static else _transformer)(path, exporter, notes)
    weight_files += tuple(file for folder in weighted for file in read(folder)[1])
    settings = {} if static else _transformer_settings(path)
    prompts, default_prompt_name, similarity, truncate_dim = _sentence_settings(root, similarities)
    if truncate_dim is not None:
        heads = (*heads, Truncate(truncate_dim))  # behind Normalize: sentence-transformers does not normalize again
    checkpoint = Checkpoint(
        path=path,
        root=root,
        name=name,
        revision=revision,
        config=config,
        architecture=row,
        stored=stored,
        weight_files=weight_files,
        pooling=pooling,
        include_prompt=include_prompt,
        heads=heads,
        max_length=1,
        lower_case=bool(settings.get("do_lower_case", False)),
        tokenizer_settings=_tokenizer_settings(settings, path),
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity=similarity,
    )
    max_length = settings.get("max_seq_length")
    if max_length is not None and (not isinstance(max_length, int) or isinstance(max_length, bool) or max_length < 1):
        raise CheckpointError(f"max_seq_length {max_length!r} beside {path / 'config.json'} is not a number of tokens")
    if static:
        max_length = _saved_limit(path)
    else:
        max_length = max_length or _limit(checkpoint.tokenizer_settings) or _tokenizer_limit(path)
    limit = row.positions(config)
    if max_length is not None and max_length > limit:
        notes.append(f"max_length {max_length} is more than the {limit} positions of the model; capped")
    return replace(checkpoint, max_length=min(max_length or limit, limit), notes=tuple(notes))


Read = tuple[dict[str, Any], Architecture, dict[str, Stored], tuple[Path, ...]]


def _transformer(path: Path, exporter: str, notes: list[str]) -> Read:
    """config.json, how to build it, its tensors, and their files."""
    config = read_json(path / "config.json")
    if "model_type" not in config:
        raise CheckpointError(f"{path / 'config.json'} has no model_type; is this a transformers checkpoint?")
    if exporter == "optimum" or (
        exporter == "auto" and row_name(config) not in ARCHITECTURES and optimum_exporter.available()
    ):
        if row_name(config) != config["model_type"]:
            raise UnsupportedCheckpointError(
                f"{path / 'config.json'} says model_type {config['model_type']!r} of code of the checkpoint's own "
                f"({row_name(config)}), which optimum does not run; leave --exporter out"
            )
        row = optimum_exporter.architecture(path)
        notes.append(f"model_type {config['model_type']}: traced by optimum")
    else:
        row = architecture(config)
    config = dict(row.config(config))
    return config, row, *read(path)


def _static(path: Path, exporter: str, notes: list[str]) -> Read:
    if exporter == "optimum":
        raise UnsupportedCheckpointError("a StaticEmbedding is built from its table, not traced; leave --exporter out")
    config, stored, files = read_static(path)
    return config, static_module.ARCHITECTURE, stored, files


def override(checkpoint: Checkpoint, wanted: Overrides) -> Checkpoint:
    """The checkpoint with the user's word instead of its own, recorded.

    Raises:
        InvalidInputError: a max_length that the model has no positions for, a default prompt that does not exist,
            a truncate_dim below 1, something that a checkpoint of this kind does not have.
    """
    _check_kind(checkpoint, wanted)
    changes: dict[str, Any] = {
        "routes": {role: override(route, wanted) for role, route in checkpoint.routes.items()},
    }
    if wanted.pooling is not None:
        if checkpoint.heads and len(wanted.pooling) != len(checkpoint.pooling) and _needs_width(checkpoint.heads):
            raise InvalidInputError(
                f"pooling {'+'.join(wanted.pooling)} changes the width that {checkpoint.heads[0]} takes; "
                "leave the pooling as the checkpoint has it"
            )
        changes["pooling"] = wanted.pooling
    if wanted.normalize is not None:
        changes["heads"] = _normalized(checkpoint.heads, wanted.normalize)
    if wanted.truncate_dim is not None:
        if wanted.truncate_dim < 1:
            raise InvalidInputError(
                f"truncate_dim {wanted.truncate_dim} is not possible; vectors have 1 number or more"
            )
        changes["heads"] = _truncated(changes.get("heads", checkpoint.heads), wanted.truncate_dim)
    if wanted.max_length is not None and not checkpoint.is_static:
        limit = checkpoint.architecture.positions(checkpoint.config)
        if not 1 <= wanted.max_length <= limit:
            raise InvalidInputError(f"max_length {wanted.max_length} is not possible; the model has {limit} positions")
        changes["max_length"] = wanted.max_length
    if wanted.prompts is not None:
        changes["prompts"] = {**checkpoint.prompts, **wanted.prompts}
    if wanted.default_prompt_name is not None:
        prompts = changes.get("prompts", checkpoint.prompts)
        if wanted.default_prompt_name not in prompts:
            raise InvalidInputError(
                f"default prompt {wanted.default_prompt_name!r} is not one of {sorted(prompts) or 'no prompts'}; "
                "add it with --prompt NAME=TEXT"
            )
        changes["default_prompt_name"] = wanted.default_prompt_name
    said = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in vars(wanted).items()
        if value is not None
    }
    return replace(checkpoint, **changes, overrides=said)


def _check_kind(checkpoint: Checkpoint, wanted: Overrides) -> None:
    if checkpoint.route is not None and (wanted.pooling is not None or wanted.normalize is not None):
        raise InvalidInputError("--pooling and --normalize are not for a model with routes; leave them out")
    if checkpoint.is_static and checkpoint.route is None and (wanted.pooling or wanted.max_length) is not None:
        raise InvalidInputError("--pooling and --max-length are not for a StaticEmbedding, a mean of all tokens")


def _normalized(heads: tuple[Head, ...], wanted: bool) -> tuple[Head, ...]:
    """The chain with normalization as its last step, or without one at its end, also before the checkpoint's cut."""
    cut = tuple(head for head in heads if isinstance(head, Truncate))
    rest = _not_normalized(heads)
    return (*rest, *cut, Normalize()) if wanted else (*rest, *cut)


def _truncated(heads: tuple[Head, ...], dim: int) -> tuple[Head, ...]:
    """The chain cut to `dim`, instead of the checkpoint's cut, before the normalization at its end."""
    rest = _not_normalized(heads)
    normalizes = Normalize() in heads[len(rest) :]
    return (*rest, Truncate(dim), Normalize()) if normalizes else (*rest, Truncate(dim))


def _not_normalized(heads: tuple[Head, ...]) -> tuple[Head, ...]:
    while heads and isinstance(heads[-1], (Normalize, Truncate)):
        heads = heads[:-1]
    return heads


def _needs_width(heads: tuple[Head, ...]) -> bool:
    return any(isinstance(head, (Dense, LayerNorm)) for head in heads)


def _pooling(folder: Path) -> tuple[tuple[str, ...], bool]:
    config = read_json(folder / "config.json")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for flag, mode in _POOLING_FLAGS.items() if config.get(flag)] or ["mean"]
    if not isinstance(modes, (str, list)):
        raise CheckpointError(f"{folder / 'config.json'} has pooling_mode {modes!r}, expected a name or a list")
    modes = (modes,) if isinstance(modes, str) else tuple(modes)
    return parse_pooling(modes), bool(config.get("include_prompt", True))


def parse_pooling(modes: tuple[str, ...]) -> tuple[str, ...]:
    """Pooling modes under sentence-transformers' names; mean_sqrt_len is short for mean_sqrt_len_tokens.

    Raises:
        UnsupportedCheckpointError: a mode that does not exist.
    """
    spelled = tuple("mean_sqrt_len_tokens" if mode == "mean_sqrt_len" else mode for mode in modes)
    unknown = [mode for mode in spelled if mode not in POOLING_MODES]
    if unknown or not spelled:
        raise UnsupportedCheckpointError(
            f"pooling {unknown[0] if unknown else ''!r} is not known; known: {', '.join(POOLING_MODES)}"
        )
    return spelled


def module_head(kind: str, folder: Path, on: str = "sentence_embedding") -> tuple[Head, ...]:
    """Head of one module, which works on the feature `on`; dropout does nothing at inference."""
    if kind == "Dropout":
        return ()
    if kind == "Normalize":
        beside = folder / "config.json"
        _check_names(kind, folder, read_json(beside) if beside.is_file() else {}, on)
        return (Normalize(),)
    if kind == "LayerNorm":
        return (LayerNorm(Tensors(read(folder)[0]), _width(folder, "dimension")),)
    if kind != "Dense":
        raise UnsupportedCheckpointError(
            f"modules.json has a {kind} module; built are Dense, LayerNorm, Dropout and Normalize behind the pooling"
        )
    config = read_json(folder / "config.json")
    _check_names(kind, folder, config, on)
    # Absent, it is Dense's own default; sentence-transformers writes it always.
    torch_name = str(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
    activation = _ACTIVATIONS.get(torch_name.rpartition(".")[2])
    if activation is None or not torch_name.startswith("torch.nn."):
        raise UnsupportedCheckpointError(
            f"{folder.name}: Dense activation {torch_name} is not built; built are torch.nn's {', '.join(_ACTIVATIONS)}"
        )
    inputs, outputs = _width(folder, "in_features"), _width(folder, "out_features")
    tensors = Tensors(read(folder)[0])
    return (
        Dense(
            tensors,
            inputs,
            outputs,
            bool(config.get("bias", True)),
            activation,
            bool(config.get("use_residual")),
        ),
    )


def _check_names(kind: str, folder: Path, config: Mapping[str, Any], on: str) -> None:
    for key in ("module_input_name", "module_output_name"):
        if config.get(key) not in (None, on):
            raise UnsupportedCheckpointError(f"{folder.name}: a {kind} with {key} {config[key]!r} is not built")


def _width(folder: Path, key: str) -> int:
    path = folder / "config.json"
    width = read_json(path).get(key)
    if not isinstance(width, int) or isinstance(width, bool) or width < 1:
        raise CheckpointError(f"{path} has {key} {width!r}, expected a number of channels")
    return width


def _transformer_settings(path: Path) -> dict[str, Any]:
    for name in _TRANSFORMER_CONFIGS:
        if (path / name).is_file():
            return read_json(path / name)
    return {}


def _tokenizer_settings(settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """What the module's settings pass on to the tokenizer; tokenizer_args until sentence-transformers 5."""
    passed = settings.get("processor_kwargs") or settings.get("tokenizer_args") or {}
    if not isinstance(passed, dict):
        raise CheckpointError(f"processor_kwargs {passed!r} beside {path / 'config.json'} are not settings by name")
    return passed


def _tokenizer_limit(path: Path) -> int | None:
    """model_max_length of the tokenizer, unless it is transformers' "no limit" (1e30)."""
    if not (path / "tokenizer_config.json").is_file():
        return None
    return _limit(read_json(path / "tokenizer_config.json"))


def _saved_limit(path: Path) -> int | None:
    """The truncation that tokenizer.json was saved with, which a StaticEmbedding keeps to."""
    file = path / "tokenizer.json"
    saved = read_json(file).get("truncation") if file.is_file() else None
    return saved.get("max_length") if isinstance(saved, dict) else None


def _limit(settings: Mapping[str, Any]) -> int | None:
    limit = settings.get("model_max_length")
    return int(limit) if isinstance(limit, (int, float)) and 0 < limit < 1e9 else None


def _sentence_settings(
    root: Path, similarities: Sequence[str] = SIMILARITIES
) -> tuple[dict[str, str], str | None, str, int | None]:
    """Prompts, default prompt, similarity and truncate_dim of config_sentence_transformers.json."""
    path = root / "config_sentence_transformers.json"
    config = read_json(path) if path.is_file() else {}
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, (str, type(None))) for text in prompts.values()):
        raise CheckpointError(f"{path} has prompts that are not texts by name")
    prompts = {name: text or "" for name, text in prompts.items()}  # null is sentence-transformers' empty prompt
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise CheckpointError(f"{path}: default_prompt_name {default!r} is not one of {sorted(prompts)}")
    similarity = config.get("similarity_fn_name") or similarities[0]
    if similarity not in similarities:
        raise CheckpointError(f"{path}: similarity_fn_name {similarity!r}; known: {', '.join(similarities)}")
    truncate_dim = config.get("truncate_dim")
    if truncate_dim is not None and (type(truncate_dim) is not int or truncate_dim < 1):
        raise CheckpointError(f"{path}: truncate_dim {truncate_dim!r} is not a number of dimensions")
    return prompts, default, similarity, truncate_dim
