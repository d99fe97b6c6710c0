"""What checkpoints of late interaction say of themselves, in three layouts: sentence-transformers' MultiVectorEncoder,
PyLate (models.ColBERT), and Stanford's ColBERT (artifact.metadata, projection beside the encoder's tensors).
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..checkpoint.modules import Dense, Head, Normalize, module_head
from ..checkpoint.read import check_class
from ..checkpoint.transformer import SETTINGS_FILES
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import inside, module_entries, read_json
from ..settings import MULTI_VECTOR_MASK, check
from ..tensors import Tensors, read

STANFORD = "HF_ColBERT"  # the class that its config.json names
PROJECTION = "linear.weight"  # where Stanford's ColBERT keeps it
QUERY_LENGTH = 32  # of an expanded query, where nothing is said: ColBERT's own
TOKENS = "token_embeddings"
PUNCTUATION = tuple(string.punctuation)
SIMILARITIES = ("maxsim", "meanmaxsim")
# Keys by which a config_sentence_transformers.json is PyLate's; their defaults are PyLate's as well.
_PYLATE = (
    *("query_length", "document_length", "do_query_expansion", "attend_to_expansion_tokens", "attend_to_mask_tokens"),
    *("query_prefix", "document_prefix", "skiplist_words", "query_expansion"),
)
PYLATE = "ColBERT"  # its model_type, which its first versions did not write
_PREFIXES = {"query": "query_prefix", "document": "document_prefix"}


@dataclass(frozen=True, kw_only=True)
class Expansion:
    """Queries filled up with a token."""

    length: int  # tokens up to which they are filled
    cut: bool  # whether longer queries are cut there
    attend: bool  # whether the other tokens see those that fill up
    token: str | None = None  # None: the mask token


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What was read."""

    path: Path  # of the transformer
    heads: tuple[Head, ...]  # on the token states
    weighted: tuple[Path, ...] = ()
    markers: Mapping[str, str] = field(default_factory=dict)  # "query", "document" -> what stands in front of a text
    query_length: int | None = None
    document_length: int | None = None
    expansion: Expansion | None = None
    skiplist: tuple[str, ...] = ()
    skiplist_tasks: tuple[str, ...] = ("document",)
    similarity: str = SIMILARITIES[0]


def read_layout(root: Path, notes: list[str]) -> Layout:
    """The layout of the checkpoint in `root`; `notes` gets what a reader should know.

    Raises:
        CheckpointError: damaged, incomplete or contradictory.
        UnsupportedCheckpointError: modules or settings that are not built; no projection.
    """
    if (root / "modules.json").is_file():
        return _modules(root, notes)
    named = read_json(root / "config.json").get("architectures") or []
    if is_stanfords(root, named):
        return _stanford(root)
    raise UnsupportedCheckpointError(
        f"{root} has neither modules.json nor artifact.metadata, and architectures {named}: built are the layouts of "
        "sentence-transformers' MultiVectorEncoder, PyLate and Stanford's ColBERT, which hold a projection of tokens"
    )


def _modules(root: Path, notes: list[str]) -> Layout:
    entries = module_entries(root, own=("sentence_transformers.", "pylate."))
    if not entries or entries[0][0] != "Transformer":
        raise UnsupportedCheckpointError(
            f"modules.json begins with {entries[0][0] if entries else 'nothing'}; built are a Transformer, then Dense, "
            "Normalize and MultiVectorMask in any order"
        )
    beside = root / "config_sentence_transformers.json"
    said = read_json(beside) if beside.is_file() else {}
    path = inside(root, entries[0][1])
    own = next((path / name for name in SETTINGS_FILES if (path / name).is_file()), path / SETTINGS_FILES[0])
    knobs = {**_from_pylate(said), **(read_json(own) if own.is_file() else {})}
    if knobs.get("transformer_task", "feature-extraction") != "feature-extraction":
        raise UnsupportedCheckpointError(
            f"{own} has transformer_task {knobs['transformer_task']!r}; token vectors are built of 'feature-extraction'"
        )
    _refuse_common_length(knobs, own)
    heads: list[Head] = []
    weighted: list[Path] = []
    mask: dict[str, Any] | None = None
    for kind, folder in entries[1:]:
        where = inside(root, folder)
        if kind == "MultiVectorMask":
            mask = read_json(where / "config.json")
            check(MULTI_VECTOR_MASK, mask, where / "config.json", notes)
            continue
        if kind not in ("Dense", "Normalize"):
            raise UnsupportedCheckpointError(
                f"modules.json has a {kind} module; built on tokens are Dense, Normalize and MultiVectorMask"
            )
        heads += module_head(kind, where, notes, TOKENS)
        weighted += [where] if kind == "Dense" else []
    if mask is not None:
        check_class(root, "MultiVectorEncoder")
    else:
        mask = {"skiplist_words": _pylate_skiplist(said, heads)}
        heads.append(Normalize())  # which PyLate's own code does
    if mask.get("keep_only_token_ids"):
        raise UnsupportedCheckpointError("MultiVectorMask has keep_only_token_ids, which is for images; not built")
    tasks = mask.get("skiplist_tasks")
    tasks = ("document",) if tasks is None else tasks  # of an empty list nothing is skipped
    similarity = said.get("similarity_fn_name")
    query_length = _length(knobs, "query_length", own)
    return Layout(
        path=path,
        heads=tuple(heads),
        weighted=tuple(weighted),
        markers={role: said[key] or "" for role, key in _PREFIXES.items() if key in said},
        query_length=query_length,
        document_length=_length(knobs, "document_length", own),
        expansion=_expansion(knobs.get("query_expansion"), query_length, own),
        skiplist=_words(mask.get("skiplist_words") or ()),
        skiplist_tasks=_words((tasks,) if isinstance(tasks, str) else tasks),
        # PyLate writes MaxSim, older files a similarity of single vectors.
        similarity=similarity if similarity in SIMILARITIES else SIMILARITIES[0],
    )


def is_stanfords(root: Path, named: Sequence[str]) -> bool:
    """Whether a checkpoint without modules.json, whose config.json names these classes, is Stanford's ColBERT."""
    return STANFORD in named or (root / "artifact.metadata").is_file()


def _pylate_skiplist(said: Mapping[str, Any], heads: Sequence[Head]) -> object:
    """Words without a vector in a checkpoint of PyLate's, whose own code masks: punctuation where none are named.

    Raises:
        UnsupportedCheckpointError: it is none of PyLate's, or sentence-transformers reads another model from it.
    """
    kind = said.get("model_type")
    if kind != PYLATE and not any(key in said for key in _PYLATE):
        raise UnsupportedCheckpointError(
            "modules.json has no MultiVectorMask, and config_sentence_transformers.json nothing of PyLate's: "
            "which tokens count is not said"
        )
    if kind not in (PYLATE, "SentenceTransformer", None):
        raise UnsupportedCheckpointError(
            f"config_sentence_transformers.json has model_type {kind!r}, and modules.json no MultiVectorMask: "
            f"sentence-transformers adds one to PyLate's checkpoints alone; write {PYLATE!r} there, if vectors were "
            "made so"
        )
    if kind != PYLATE and not any(isinstance(head, Dense) for head in heads):
        raise UnsupportedCheckpointError(
            "modules.json has no Dense, for which sentence-transformers puts a random projection; write model_type "
            f"{PYLATE!r} into config_sentence_transformers.json, if vectors were made without"
        )
    words = said.get("skiplist_words")
    marked = kind == PYLATE or any(key in said for key in _PREFIXES.values())
    return words if words is not None else PUNCTUATION if marked else ()


def _from_pylate(said: Mapping[str, Any]) -> dict[str, Any]:
    """PyLate's flat settings as those of a Transformer module; expansion is on where nothing is said."""
    if not any(key in said for key in _PYLATE):
        return {}
    knobs = {key: said[key] for key in ("query_length", "document_length") if said.get(key) is not None}
    if "query_expansion" in said:
        return {**knobs, "query_expansion": said["query_expansion"]}
    if said.get("do_query_expansion") is False:
        return knobs
    knobs.pop("query_length", None)
    attend = said.get("attend_to_expansion_tokens", said.get("attend_to_mask_tokens"))
    length = said.get("query_length") or QUERY_LENGTH
    return {**knobs, "query_expansion": {"strategy": "fixed", "attend": bool(attend), "length": length}}


def _stanford(root: Path) -> Layout:
    where = root / "artifact.metadata"
    said = read_json(where) if where.is_file() else {}
    stored = read(root)[0]
    if PROJECTION not in stored or len(stored[PROJECTION].shape) != 2:
        found = stored[PROJECTION].shape if PROJECTION in stored else "nothing"
        raise CheckpointError(f"{root} has {found} under {PROJECTION!r}, expected ColBERT's projection (dim, hidden)")
    outputs, inputs = stored[PROJECTION].shape
    tensors = Tensors({PROJECTION: stored[PROJECTION]})
    projection = Dense(tensors, inputs, outputs, bias=False, activation="Identity", residual=False)
    length = _length(said, "query_maxlen", where) or QUERY_LENGTH
    return Layout(
        path=root,
        heads=(projection, Normalize()),
        markers={
            "query": f"{said.get('query_token_id') or '[unused0]'} ",
            "document": f"{said.get('doc_token_id') or '[unused1]'} ",
        },
        document_length=_length(said, "doc_maxlen", where),
        expansion=Expansion(length=length, cut=True, attend=bool(said.get("attend_to_mask_tokens"))),
        skiplist=PUNCTUATION if said.get("mask_punctuation", True) else (),
    )


def _expansion(said: object, query_length: int | None, where: Path) -> Expansion | None:
    if said is None:
        return None
    if not isinstance(said, dict) or said.get("strategy") not in ("fixed", "min"):
        raise CheckpointError(f"{where} has query_expansion {said!r}, expected strategy 'fixed' or 'min' and a length")
    if unknown := sorted(set(said) - {"strategy", "length", "attend", "token"}):
        raise CheckpointError(
            f"{where} has query_expansion with {unknown[0]!r}, which sentence-transformers refuses as well"
        )
    length = _length(said, "length", where)
    if length is None:
        raise CheckpointError(f"{where} has query_expansion without a length")
    if query_length is not None and query_length < length:
        raise CheckpointError(
            f"{where} has query_length {query_length}, less than the {length} tokens that query_expansion fills "
            "queries up to, which sentence-transformers refuses as well"
        )
    if not isinstance(said.get("attend", False), bool):
        raise CheckpointError(f"{where} has query_expansion with attend {said['attend']!r}, expected true or false")
    if not isinstance(said.get("token"), (str, type(None))):
        raise CheckpointError(f"{where} has query_expansion with token {said['token']!r}, expected its text")
    return Expansion(
        length=length, cut=said["strategy"] == "fixed", attend=said.get("attend", False), token=said.get("token")
    )


def _refuse_common_length(knobs: Mapping[str, Any], where: Path) -> None:
    """Refuse a max_length of each call of the tokenizer, which counts more than the lengths of roles, in most of them.

    Queries that are filled up are cut before it or there, as it is said.
    """
    own = [key for key in ("query_length", "document_length", "query_expansion") if knobs.get(key) is not None]
    processing = knobs.get("processing_kwargs")
    parts = processing.values() if isinstance(processing, dict) else ()
    if own and any(isinstance(part, dict) and part.get("max_length") is not None for part in parts):
        raise UnsupportedCheckpointError(
            f"{where} has a max_length in processing_kwargs beside {' and '.join(own)}, which is not built; leave it "
            "out"
        )


def _length(said: Mapping[str, Any], key: str, where: Path) -> int | None:
    value = said.get(key)
    if value is not None and (type(value) is not int or value < 1):
        raise CheckpointError(f"{where} has {key} {value!r}, expected a number of tokens")
    return value


def _words(said: object) -> tuple[str, ...]:
    if not isinstance(said, (list, tuple)) or not all(isinstance(word, str) for word in said):
        raise CheckpointError(f"skiplist {said!r} is not a list of words")
    return tuple(said)
