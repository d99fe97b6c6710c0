"""Jina's own code for XLM-RoBERTa (jina-embeddings-v3, jina-reranker-v2, jina-colbert-v2): what its files say, as
transformers' classes read it.

Its config.json names the class below; its tensors are called as in flash attention's BERT. jina-embeddings-v3 holds a
LoRA for each task beside the weights, stacked over the tasks (Sturua et al. 2024, arXiv:2409.10173): of a linear layer
A (tasks, rank, in) and B (tasks, out, rank), of a table A (tasks, rows, rank) and B (tasks, rank, channels).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import inside, read_json
from ..graph.weight import Array
from ..tensors import FLOATS, Stored, some

CODE = "XLMRobertaFlashConfig"  # class that auto_map names for config.json
MODULE = "custom_st.Transformer"  # class of its transformer in modules.json
PUBLISHED = "as-published"  # folder beside a translated config.json: the one that it was, and what was made of it
_CONFIG, _NOTE = "config.json", "translation.json"
_CHAIN, _SETTINGS = "modules.json", "sentence_bert_config.json"
_SIZES = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "layer_norm_eps"),
    *("max_position_embeddings", "type_vocab_size", "position_embedding_type"),
)
_BASE = 10_000.0  # of the rotary positions, where config.json names none
_TANH = ("gelu_new", "gelu_fast", "gelu_pytorch_tanh")  # all the same here
# Keys of what runs, is trained or is asked of AutoModel.encode, and those that are translated.
_OWN_KEYS = (
    *("auto_map", "model_type", "architectures", "lora_adaptations", "task_instructions", "lora_rank", "lora_alpha"),
    *("lora_dropout_p", "lora_main_params_trainable", "load_trained_adapters", "use_flash_attn", "use_reentrant"),
    *("emb_pooler", "matryoshka_dimensions", "truncate_dim", "position_embedding_type", "rotary_emb_base"),
    *("rotary_emb_dim", "rotary_emb_scale_base", "rotary_emb_interleaved", "pad_vocab_size_multiple"),
)
# Of sentence_bert_config.json's model_args: what the code takes for itself.
_MODEL_ARGS = ("default_task", "use_flash_attn", "lora_main_params_trainable", "trust_remote_code")
_PARAMETRIZED = re.compile(r"(?P<module>.+)\.parametrizations\.weight\.(?P<part>original|0\.lora_A|0\.lora_B)")
_UNADAPTED = "position_embeddings"  # which has an adapter's tensors that the code does not use


@dataclass(frozen=True)
class Own:
    """A transformer of that code."""

    folder: Path
    config: Mapping[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of its adapters, in the order in which they are stacked."""
        named = self.config.get("lora_adaptations") or ()
        if not isinstance(named, (list, tuple)) or not all(isinstance(name, str) for name in named):
            raise CheckpointError(f"{self.folder / _CONFIG} has lora_adaptations {named!r}, expected names of tasks")
        return tuple(named)

    @property
    def default(self) -> str | None:
        """The task of texts that name none; None: no adapter."""
        return default_task(self.folder)

    @property
    def instructions(self) -> dict[str, str]:
        """The prompt of each task."""
        said = self.config.get("task_instructions") or {}
        if not isinstance(said, dict):
            raise CheckpointError(f"{self.folder / _CONFIG} has task_instructions {said!r}, expected texts by task")
        return {str(name): text for name, text in said.items() if isinstance(text, str)}


@dataclass(frozen=True, kw_only=True)
class Translation:
    """What was made of a transformer of that code."""

    name: str  # of the checkpoint
    revision: str | None
    task: str | None  # whose adapter is to be merged
    index: int | None  # its place among the tasks
    tasks: tuple[str, ...]
    rank: int  # of the adapters' products
    scale: float  # by which they are multiplied


def own_transformer(root: Path) -> Own | None:
    """The transformer of the checkpoint in `root`, if it is of that code."""
    folder = root
    if (root / _CHAIN).is_file():
        chain = entries(root)
        kind = str(chain[0].get("type", "")) if chain else ""
        if not is_module(kind) and not kind.endswith(".Transformer"):
            return None
        folder = inside(root, str(chain[0].get("path", "")))
    if not (folder / _CONFIG).is_file() or (folder / PUBLISHED).is_dir():
        return None
    config = read_json(folder / _CONFIG)
    named = config.get("auto_map")
    known = str(named.get("AutoConfig", "")) if isinstance(named, dict) else ""
    return Own(folder, config) if known.rpartition(".")[2] == CODE else None


def is_module(kind: str) -> bool:
    """Whether a type in modules.json is the code's transformer, under any name of its package."""
    return kind == MODULE or kind.endswith(f".{MODULE}")


def translated_config(own: Own) -> dict[str, Any]:
    """config.json for transformers' class of the same maths: XLM-RoBERTa, or with rotary positions Jina's.

    Raises:
        CheckpointError: sizes that are missing, an activation that the code does not know.
        UnsupportedCheckpointError: a setting that transformers' classes do not have.
    """
    config, where = own.config, own.folder / _CONFIG
    if missing := [key for key in _SIZES if config.get(key) is None]:
        raise CheckpointError(f"{where} has no {', '.join(missing)}")
    for key in ("hidden_size", "num_attention_heads", "vocab_size", "pad_vocab_size_multiple"):
        if (size := config.get(key)) is not None and (type(size) is not int or size < 1):
            raise CheckpointError(f"{where} has {key} {size!r}, expected a whole number above 0")
    named = config.get("architectures") or ()
    if not isinstance(named, (list, tuple)):
        raise CheckpointError(f"{where} has architectures {named!r}, expected names of classes")
    kind, activation = config["position_embedding_type"], config.get("hidden_act", "gelu")
    if activation not in ("gelu", *_TANH):
        raise CheckpointError(
            f"{where} has hidden_act {activation!r}, which its code refuses; it knows gelu, {', '.join(_TANH)}"
        )
    head = config["hidden_size"] // config["num_attention_heads"]
    strange = {
        "position_embedding_type": kind not in ("rotary", "absolute"),
        "rotary_emb_dim": config.get("rotary_emb_dim") not in (None, head),
        "rotary_emb_scale_base": config.get("rotary_emb_scale_base") is not None,
        "rotary_emb_interleaved": bool(config.get("rotary_emb_interleaved")),
    }
    for key, refused in strange.items():
        if refused:
            raise UnsupportedCheckpointError(
                f"{where} has {key} {config[key]!r}; built of Jina's XLM-RoBERTa are absolute positions, and rotary "
                "ones over whole heads, by halves and without a scale"
            )
    rotary = kind == "rotary"
    multiple = config.get("pad_vocab_size_multiple") or 1
    made = {key: value for key, value in config.items() if key not in _OWN_KEYS}
    made |= {
        "model_type": "jina_embeddings_v3" if rotary else "xlm-roberta",
        "architectures": [_class(str(name), rotary=rotary) for name in named],
        "hidden_act": "gelu" if activation == "gelu" else "gelu_pytorch_tanh",
        "vocab_size": -(-config["vocab_size"] // multiple) * multiple,
    }
    if rotary:
        theta = config.get("rotary_emb_base")
        made["rope_parameters"] = {"rope_type": "default", "rope_theta": _BASE if theta is None else theta}
    return made


def _class(name: str, *, rotary: bool) -> str:
    """transformers' class for one of the code's, another library's as it is."""
    name = name.replace("XLMRobertaLoRA", "XLMRobertaModel")
    return name.replace("XLMRoberta", "JinaEmbeddingsV3", 1) if rotary and name.startswith("XLMRoberta") else name


def translated_prompts(own: Own, said: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
    """config_sentence_transformers.json with the chosen adapters' prompts, as the code's own encode() puts them.

    Args:
        own: the transformer.
        said: the file as it is.
        chosen: task of each role, or of all texts ("").

    Raises:
        CheckpointError: prompts that are no texts by name.
    """
    named = said.get("prompts") or {}
    if not isinstance(named, dict):
        raise CheckpointError(f"{own.folder} has prompts that are not texts by name")
    prompts = {**own.instructions, **{name: text or "" for name, text in named.items()}}
    if not chosen:
        return dict(said)
    kept = {name: text for name, text in prompts.items() if name not in own.tasks}
    if "" in chosen:
        task = chosen[""]
        text = prompts.get(task, "")
        kept |= {task: text, **({role: text} if (role := role_of(task)) is not None else {})}
        default = task if text else None
    else:
        kept |= {role: prompts.get(task, "") for role, task in chosen.items()}
        default = "document" if kept["document"] else None
    return {**said, "prompts": kept, "default_prompt_name": said.get("default_prompt_name") or default}


def role_of(task: str) -> str | None:
    """The role of the texts that a task is for, None where it is for all."""
    return {"query": "query", "passage": "document", "document": "document"}.get(task.rpartition(".")[2])


def write(own: Own, place: Path, translation: Translation) -> None:
    """Into the directory `place`, beside links to the other files: config.json for transformers, and what it was."""
    (place / PUBLISHED).mkdir(parents=True, exist_ok=True)
    said = json.dumps(asdict(translation))
    (place / PUBLISHED / _NOTE).write_text(said, encoding="utf-8")
    (place / PUBLISHED / _CONFIG).write_bytes((own.folder / _CONFIG).read_bytes())
    _replace(place / _CONFIG, translated_config(own))
    write_settings(own.folder, place)


def write_settings(folder: Path, place: Path) -> None:
    """The settings of the transformer in `folder` into `place`, without what the code takes for itself."""
    if body := _settings(folder):
        _replace(place / _SETTINGS, {key: _without_own(value) for key, value in body.items()})


def default_task(folder: Path) -> str | None:
    """The task of texts that name none, as the settings of the transformer in `folder` say."""
    for name in ("model_args", "model_kwargs"):
        said = _settings(folder).get(name)
        if isinstance(said, dict) and said.get("default_task"):
            return str(said["default_task"])
    return None


def translation_of(folder: Path) -> Translation | None:
    """What `write` has put beside a transformer in `folder`, if it has."""
    if not (folder / PUBLISHED / _NOTE).is_file():
        return None
    said = read_json(folder / PUBLISHED / _NOTE)
    return Translation(**{**said, "tasks": tuple(said["tasks"])})


def translation(own: Own, name: str, revision: str | None, task: str | None) -> Translation:
    """What is made of a transformer for one of its tasks, or for none.

    Raises:
        CheckpointError: settings of the adapters that are missing.
    """
    if task is None:
        return Translation(name=name, revision=revision, task=None, index=None, tasks=own.tasks, rank=0, scale=0.0)
    rank, alpha = own.config.get("lora_rank"), own.config.get("lora_alpha")
    if type(rank) is not int or rank < 1 or not isinstance(alpha, (int, float)):
        raise CheckpointError(
            f"{own.folder / _CONFIG} has lora_rank {rank!r} and lora_alpha {alpha!r}; both are needed"
        )
    index, scale = own.tasks.index(task), alpha / rank
    return Translation(name=name, revision=revision, task=task, index=index, tasks=own.tasks, rank=rank, scale=scale)


def merged(stored: Mapping[str, Stored], wanted: Translation, where: str) -> tuple[dict[str, Stored], frozenset[str]]:
    """The tensors with the wanted task's adapter in them, read when they are asked for; and names of those it changes.

    Raises:
        CheckpointError: tensors that are missing or do not fit each other.
    """
    made: dict[str, Stored] = {}
    parts: dict[str, dict[str, Stored]] = {}
    for name, tensor in stored.items():
        if (found := _PARAMETRIZED.fullmatch(name)) is None:
            made[name] = tensor
        else:
            parts.setdefault(found["module"], {})[found["part"]] = tensor
    changed = set()
    for module, pieces in parts.items():
        name = f"{module}.weight"
        if "original" not in pieces or name in made:
            raise CheckpointError(f"{where} has parts of an adapter for {module}, and its weights twice or not at all")
        made[name] = pieces["original"]
        pair = pieces.get("0.lora_A"), pieces.get("0.lora_B")
        if pair == (None, None) or module.endswith(_UNADAPTED) or wanted.index is None:
            continue
        first, second = pair
        if first is None or second is None:
            raise CheckpointError(f"{where} has one of the adapters' tensors A and B for {module} alone")
        made[name] = _with_adapter(pieces["original"], first, second, wanted, module, where)
        changed.add(name)
    if wanted.index is not None and not changed:
        raise CheckpointError(
            f"{where} has no tensors of adapters (...parametrizations.weight.0.lora_A), of which {wanted.task!r} was "
            f"asked for; there are {some(sorted(stored))}"
        )
    return made, frozenset(changed)


def _with_adapter(base: Stored, a: Stored, b: Stored, wanted: Translation, module: str, where: str) -> Stored:
    index, tasks, rank = wanted.index or 0, len(wanted.tasks), wanted.rank
    rows, columns = base.shape if len(base.shape) == 2 else (0, 0)
    table = module.endswith("_embeddings")
    expected = ((tasks, rows, rank), (tasks, rank, columns)) if table else ((tasks, rank, columns), (tasks, rows, rank))
    if (a.shape, b.shape) != expected or not {base.dtype, a.dtype, b.dtype} <= FLOATS:
        raise CheckpointError(
            f"{where} has A {a.dtype} {a.shape} and B {b.dtype} {b.shape} for {module} {base.dtype} {base.shape}; with "
            f"{tasks} tasks of rank {rank} expected are floats of {expected[0]} and {expected[1]}"
        )

    def load() -> Array:
        one, other = a.load()[index], b.load()[index]
        scaled = one * one.dtype.type(wanted.scale)
        weight: Array = scaled @ other if table else other @ scaled
        weight += base.load()  # in place: a table of words is the largest tensor
        return weight

    return Stored(base.shape, "F32", load)


def entries(root: Path) -> list[dict[str, Any]]:
    """Entries of modules.json; what is wrong with it is said where it is read."""
    try:
        return [dict(entry) for entry in json.loads((root / _CHAIN).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):
        return []


def _settings(folder: Path) -> dict[str, Any]:
    file = folder / _SETTINGS
    return read_json(file) if file.is_file() else {}


def _without_own(value: object) -> object:
    return {key: one for key, one in value.items() if key not in _MODEL_ARGS} if isinstance(value, dict) else value


def _replace(file: Path, body: object) -> None:
    file.unlink(missing_ok=True)  # it may be a link
    file.write_text(json.dumps(body, indent=2), encoding="utf-8")
