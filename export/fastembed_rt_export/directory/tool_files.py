"""The settings files that other tools look for beside a graph: config.json, the tokenizer's, sentence-transformers'.

Written from the checkpoint as it was read, what was changed at export included, so that a tool which reads them does
what the graph does. Nothing that would send a tool looking for weights or code which are not there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fastembed_rt.manifest import EMBEDDING, FileRecord, record_file

from ..checkpoint.modules import Truncate
from ..checkpoint.record import Checkpoint
from ..files import inside, module_entries, read_json
from ..tokenizer import chat_template, class_names
from ..tokenizer.tokenizer_json import SETTINGS, TokenizerFile
from . import sentence_modules

# Of config.json: code that is not shipped, and the place where somebody trained.
_LEFT_OUT = ("auto_map", "_name_or_path")
# What DistilBERT calls sizes that readers of config.json know by these names; to transformers both are one.
_SIZES = {"hidden_size": "dim", "num_hidden_layers": "n_layers"}
# Of tokenizer_config.json: limits that would compete with model_max_length, arguments of a call, files and code that
# are not there.
_TOKENIZER_LEFT_OUT = (
    *("max_length", "max_len", "stride", "truncation", "truncation_strategy", "padding", "return_token_type_ids"),
    *("name_or_path", "special_tokens_map_file", "tokenizer_file", "full_tokenizer_file", "vocab_file", "merges_file"),
    *("spm_file", "vocab", "files_loaded", "is_local", "auto_map", "trust_remote_code", "token", "use_auth_token"),
    *("cache_dir", "revision", "code_revision", "local_files_only", "subfolder"),
)
# The class that takes tokenizer.json as it is, under the name that every version of transformers knows.
_ANY_TOKENIZER = "PreTrainedTokenizerFast"
_NEWER_CLASSES = {"TokenizersBackend": _ANY_TOKENIZER, "PythonBackend": _ANY_TOKENIZER}
_SPECIAL = (
    *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
    "additional_special_tokens",
)
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized")


def write(checkpoint: Checkpoint, work: Path, tokenizer: TokenizerFile, *, weights: bool) -> tuple[FileRecord, ...]:
    """Write the files of one encoder into `work`; their records.

    Args:
        checkpoint: the encoder's.
        work: directory with its tokenizer.json.
        tokenizer: that file.
        weights: whether modules behind the pooling get theirs, for tools that run them on token states.
    """
    texts: dict[str, Mapping[str, Any] | list[Any]] = {}
    if not checkpoint.is_static:  # which has no transformer, and no config.json
        texts["config.json"] = config(checkpoint, tokenizer)
    texts[SETTINGS], texts["special_tokens_map.json"] = tokenizer_settings(checkpoint, tokenizer)
    written = []
    if checkpoint.task != EMBEDDING:
        if checkpoint.route is None:  # else they are those of several encoders, of which this is one
            texts |= _as_they_are(checkpoint)
    elif not checkpoint.is_static:  # sentence-transformers would look for its table
        texts["sentence_bert_config.json"] = {
            "max_seq_length": checkpoint.max_length,
            "do_lower_case": checkpoint.lower_case,
            **{f"{role}_length": length for role, length in checkpoint.lengths.items()},
        }
        texts["config_sentence_transformers.json"] = sentence_settings(checkpoint)
        chain = () if checkpoint.unlike_modules is not None else sentence_modules.chain(checkpoint)
        if chain:
            texts["modules.json"] = sentence_modules.listing(chain)
        for module in chain:
            if module.config is not None:
                texts[f"{module.path}/config.json"] = module.config
            if weights and module.weights:
                written.append(sentence_modules.save_weights(module, work))
    for name, body in texts.items():
        (work / name).parent.mkdir(exist_ok=True)
        (work / name).write_text(json.dumps(body, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return tuple(record_file(work, name) for name in sorted([*texts, *written]))


def config(checkpoint: Checkpoint, tokenizer: TokenizerFile) -> dict[str, Any]:
    """config.json: the checkpoint's, without what leads elsewhere."""
    said = read_json(checkpoint.path / "config.json")
    sizes = {name: said[other] for name, other in _SIZES.items() if name not in said and other in said}
    padding = {"pad_token_id": tokenizer.pad_token_id} if said.get("pad_token_id") is None else {}
    if tokenizer.copied:
        sizes["vocab_size"] = checkpoint.config["vocab_size"]
    return {**{key: value for key, value in said.items() if key not in _LEFT_OUT}, **sizes, **padding}


def tokenizer_settings(checkpoint: Checkpoint, tokenizer: TokenizerFile) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer_config.json and special_tokens_map.json: tokens that tokenizer.json has, and the true limit.

    Some tools add the special tokens that are named here to the tokenizer. So they are named with the flags that they
    have in tokenizer.json, and none is named that it does not know as special: a word would become one.
    """
    made = Tokenizer.from_str(tokenizer.text)
    known = {token.content: token for token in made.get_added_tokens_decoder().values() if token.special}
    named, beside = _read(checkpoint, SETTINGS), _read(checkpoint, "special_tokens_map.json")
    said = {**named, **checkpoint.tokenizer_settings}

    def spelled(token: Any) -> dict[str, Any] | str | None:
        content = token.get("content") if isinstance(token, dict) else token
        found = known.get(content) if isinstance(content, str) else None
        if found is None:
            return None
        flags = {flag: getattr(found, flag) for flag in _FLAGS}
        return {"content": found.content, **flags} if any(flags.values()) else found.content

    special: dict[str, Any] = {}
    for name in _SPECIAL:
        token = said.get(name, beside.get(name))
        if isinstance(token, list):
            special[name] = [one for one in map(spelled, token) if one is not None]
        elif (one := spelled(token)) is not None:
            special[name] = one
    if "pad_token" not in special and not checkpoint.is_static:
        # Padding is masked. Tools want a name for it.
        padding = made.id_to_token(tokenizer.pad_token_id)
        other = next((special[name] for name in ("eos_token", "unk_token", "sep_token") if name in special), None)
        if (one := spelled(padding) or other) is not None:
            special["pad_token"] = one
    kept = {key: value for key, value in said.items() if key not in (*_TOKENIZER_LEFT_OUT, *_SPECIAL)}
    if checkpoint.chat is not None:  # which may lie in a file of its own
        kept["chat_template"] = chat_template.source_of(checkpoint)
    # By content alone: fastembed and light-embed take pad_token for a string.
    names = {name: token["content"] if isinstance(token, dict) else token for name, token in special.items()}
    if isinstance(special.get("additional_special_tokens"), list):
        names["additional_special_tokens"] = special["additional_special_tokens"]
    kind = str(said.get("tokenizer_class") or _ANY_TOKENIZER)
    if class_names.is_in_python(kind):  # which would not read tokenizer.json
        kind = _ANY_TOKENIZER
    return {
        **kept,
        **names,
        "model_max_length": checkpoint.max_length,
        "truncation_side": tokenizer.truncation_side,
        "tokenizer_class": _NEWER_CLASSES.get(kind, kind),
    }, special


def sentence_settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """config_sentence_transformers.json: prompts, similarity, and a cut of the vectors."""
    path = checkpoint.root / "config_sentence_transformers.json"
    said = read_json(path) if path.is_file() and (checkpoint.root / "modules.json").is_file() else {}
    cuts = [head.dim for head in checkpoint.heads if isinstance(head, Truncate)]
    return {
        **{key: said[key] for key in ("__version__", "model_type") if key in said},
        "prompts": dict(checkpoint.prompts),
        "default_prompt_name": checkpoint.default_prompt_name,
        "similarity_fn_name": checkpoint.similarity,
        **({"truncate_dim": min(cuts)} if cuts else {}),
    }


def _as_they_are(checkpoint: Checkpoint) -> dict[str, Any]:
    """Of a task with modules of its own: sentence-transformers' files as the checkpoint has them, folders included.

    But for what was changed at export: prompts and limits.
    """
    root, changed = checkpoint.root, checkpoint.overrides
    found: dict[str, Any] = {}
    for name in ("sentence_bert_config.json", "config_sentence_transformers.json"):
        if (root / name).is_file():
            found[name] = read_json(root / name)
    if "sentence_bert_config.json" in found:
        found["sentence_bert_config.json"].pop("model_kwargs", None)  # of torch
        found["sentence_bert_config.json"].pop("model_args", None)
        limits = ("max_seq_length", *(("document_length",) if "max_length" in changed else ()))
        for limit in limits:
            if found["sentence_bert_config.json"].get(limit) is not None:
                found["sentence_bert_config.json"][limit] = checkpoint.max_length
    if (sentence := found.get("config_sentence_transformers.json")) is not None:
        if "prompts" in changed:
            sentence["prompts"] = {**(sentence.get("prompts") or {}), **changed["prompts"]}
        if "default_prompt_name" in changed:
            sentence["default_prompt_name"] = changed["default_prompt_name"]
    if not (root / "modules.json").is_file():
        return found
    found["modules.json"] = json.loads((root / "modules.json").read_text(encoding="utf-8"))
    for _, folder in module_entries(root, own=("",)):
        beside = inside(root, folder) / "config.json"
        if folder and beside.is_file():
            found[f"{folder}/config.json"] = read_json(beside)
    return found


def _read(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    path = checkpoint.path / name
    return read_json(path) if path.is_file() else {}
