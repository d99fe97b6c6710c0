"""What `embed` asks of a model: options that fit its task, then a stream of vectors and what is said of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import InvalidInputError
from ..manifest import EMBEDDING, LATE_INTERACTION, RERANKING, SPARSE, Manifest
from ..vectors.quantized import FLOAT32, KINDS, Array, form
from . import provenance
from .layouts import Dense, Layout, Sparse, Tokens
from .opening import limit

if TYPE_CHECKING:
    from ..models.embedding import EmbeddingModel
    from ..models.late_interaction import LateInteractionModel
    from ..models.sparse import SparseModel
    from .opening import Model

# Options that change vectors of one kind alone, with what they are when nobody gives them.
OF_DENSE: Mapping[str, Any] = {
    "truncate_dim": None,
    "normalize": None,
    "output_precision": FLOAT32,
    "ranges": None,
    "calibration_embeddings": None,
}
OF_SPARSE: Mapping[str, Any] = {"max_active_dims": None}
OF_EMBEDDING: Mapping[str, Mapping[str, Any]] = {
    SPARSE: {"route": None, "tokens": False},
    LATE_INTERACTION: {"route": None},
}
LAYOUTS: Mapping[str, type[Layout]] = {EMBEDDING: Dense, SPARSE: Sparse, LATE_INTERACTION: Tokens}


@dataclass(frozen=True, kw_only=True)
class Request:
    """A model ready to be asked."""

    layout: Layout
    embed: Callable[[Iterable[str]], Iterator[Any]]
    fingerprint: str
    prompts: Mapping[str, Any]  # prompt_name and prompt, as `embed` has them
    facts: Callable[[int, int], str]  # of so many texts and numbers, for the summary
    limit: str  # what longer texts are cut at
    encode: Callable[[list[str], Any], Any] = lambda texts, out: None  # of dense models: `Encoded`
    zero: Any = 0  # of dense models, what a vector of zeros is stored as


def options(args: argparse.Namespace, described: Manifest) -> dict[str, Any]:
    """What the class that opens the model takes of the arguments.

    Raises:
        InvalidInputError: a model without vectors of texts, or an option that its vectors cannot have.
    """
    task = described.task
    if task == RERANKING:
        raise InvalidInputError(
            f"{args.model} holds a model for reranking, which scores pairs of texts and has no vectors; "
            "use fastembed-rt rerank, or similar for one pair"
        )
    foreign = {
        **(OF_DENSE if task != EMBEDDING or args.tokens else {}),
        **(OF_SPARSE if task != SPARSE else {}),
        **OF_EMBEDDING.get(task, {}),
    }
    for name, default in foreign.items():
        if getattr(args, name) != default:
            given = ("no-" if getattr(args, name) is False else "") + name.replace("_", "-")
            what = layout_of(args, described).plural
            raise InvalidInputError(f"--{given} is not for {what}, which {args.model} gives here; drop it")
    made: dict[str, Any] = {"truncation": args.truncation, **limit(described, args.max_length, args.role or "document")}
    if task == EMBEDDING:
        made |= {"truncate_dim": args.truncate_dim, "route": args.route or (args.role if described.routes else None)}
    elif task == SPARSE:
        made["max_active_dims"] = args.max_active_dims
    return made


def layout_of(args: argparse.Namespace, described: Manifest) -> type[Layout]:
    """How the vectors lie in files, known before a model is there."""
    return Tokens if args.tokens and described.task == EMBEDDING else LAYOUTS[described.task]


def stored_as(args: argparse.Namespace) -> dict[str, Any]:
    """Precision and ranges of dense vectors, as `EmbeddingModel.embed` takes them; looks at no model."""
    made: dict[str, Any] = {}
    if args.output_precision != FLOAT32:
        made["precision"] = args.output_precision
    given = {name: getattr(args, name) for name in ("ranges", "calibration_embeddings")}
    files = {name: file for name, file in given.items() if file is not None}
    if KINDS[args.output_precision].ranged and not files:
        raise InvalidInputError(
            f"--output-precision {args.output_precision} needs --ranges FILE.npy or --calibration-embeddings FILE.npy"
        )
    if files and not KINDS[args.output_precision].ranged:
        name = next(iter(files)).replace("_", "-")
        raise InvalidInputError(f"--{name} is for --output-precision int8 and uint8; drop it")
    return {**made, **{name: _load(file) for name, file in files.items()}}


def _load(file: str) -> Array:
    try:
        found = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise InvalidInputError(f"{file} does not exist") from error
    except (ValueError, EOFError) as error:
        raise InvalidInputError(f"{file} is not a .npy file ({error})") from error
    if not isinstance(found, np.ndarray):
        raise InvalidInputError(f"{file} is an archive of arrays; pass a .npy file")
    return found


def request(model: Model, args: argparse.Namespace, stored: Mapping[str, Any]) -> Request:
    """What is asked of the model, `stored` by `stored_as`.

    Raises:
        InvalidInputError: a prompt that the model does not have.
        ModelFormatError: --tokens of an export without them.
    """
    if model.task == SPARSE:
        return _sparse(cast("SparseModel", model), args)
    if model.task == LATE_INTERACTION:
        return _late_interaction(cast("LateInteractionModel", model), args)
    dense = cast("EmbeddingModel", model)
    return _tokens(dense, args) if args.tokens else _dense(dense, args, stored)


def _dense(model: EmbeddingModel, args: argparse.Namespace, stored: Mapping[str, Any]) -> Request:
    prompts = _prompts(model, args)
    asked: dict[str, Any] = {**prompts, "normalize": args.normalize, **stored}
    made = form(args.output_precision, model.dim, *map(stored.get, ("ranges", "calibration_embeddings")))
    return Request(
        layout=Dense(made.width, made.kind.dtype),
        embed=lambda texts: model.embed(texts, **asked),
        fingerprint=model.fingerprint(**asked),
        prompts=prompts,
        facts=lambda count, numbers: f"dim {model.dim}",
        limit=f"max_length {model.max_length}",
        encode=lambda texts, out: model.encode(texts, return_tokens=True, out=out, **asked),
        zero=made(np.zeros(model.dim, np.float32)),
    )


def _tokens(model: EmbeddingModel, args: argparse.Namespace) -> Request:
    from ..models.token_states import token_graph

    prompts = _prompts(model, args)
    dim = token_graph(model.variant).dim
    return Request(
        layout=Tokens(dim, offsets=True),
        embed=lambda texts: model.embed(texts, output="tokens", **prompts),
        fingerprint=provenance.of_tokens(model.fingerprint(**prompts), dim),
        prompts=prompts,
        facts=lambda count, numbers: _token_facts(dim, numbers),
        limit=f"max_length {model.max_length}",
    )


def _sparse(model: SparseModel, args: argparse.Namespace) -> Request:
    prompts = _prompts(model, args)

    def facts(count: int, numbers: int) -> str:
        mean = f", {numbers / 2 / count:.0f} a text" if count else ""
        return f"weights of {model.dim} words{mean}"

    return Request(
        layout=Sparse(model.dim),
        embed=lambda texts: model.embed(texts, **prompts),
        fingerprint=provenance.of_words(
            model.manifest,
            model.variant,
            prompt=prompt_text(model, prompts),
            max_length=model.max_length,
            most=model.max_active_dims,
        ),
        prompts=prompts,
        facts=facts,
        limit=f"max_length {model.max_length}",
    )


def _late_interaction(model: LateInteractionModel, args: argparse.Namespace) -> Request:
    role = args.role or "document"  # what there are many of
    prompts = _prompts(model, args, role)
    queries = role == "query"
    embed = model.embed_queries if queries else model.embed_documents
    length = model.query_length if queries else model.document_length
    kind = provenance.QUERIES if queries else provenance.DOCUMENTS
    return Request(
        layout=Tokens(model.dim),
        embed=lambda texts: embed(texts, **prompts),
        fingerprint=provenance.of_late_interaction(
            model.manifest, model.variant, prompt=prompt_text(model, prompts), length=length, role=kind
        ),
        prompts=prompts,
        facts=lambda count, numbers: f"as {kind}, {_token_facts(model.dim, numbers)}",
        limit=f"{role}_length {length}",
    )


def _token_facts(dim: int, numbers: int) -> str:
    return f"dim {dim}, {numbers // dim} token vectors"


def _prompts(model: Model, args: argparse.Namespace, role: str | None = None) -> dict[str, Any]:
    given = {"prompt_name": args.prompt_name, "prompt": args.prompt}
    role = args.role or role
    if role is None:
        return given
    from ..models.prompts import ROLE_PROMPTS, of_role

    return {**given, **of_role(ROLE_PROMPTS[role], model.prompts, given)}


def prompt_text(model: Model, prompts: Mapping[str, str | None]) -> str:
    """What stands in front of each text."""
    if prompts["prompt"] is not None:
        return prompts["prompt"]
    name = prompts["prompt_name"] or model.default_prompt_name
    return "" if name is None else model.prompts.get(name, "")


def prompt_used(model: Model, prompts: Mapping[str, str | None]) -> str:
    """Which prompt of the model's stood before each text, "" where none did or the caller wrote it."""
    if prompts["prompt"] is not None or not (text := prompt_text(model, prompts)):
        return ""
    name = prompts["prompt_name"] or model.default_prompt_name
    return f"prompt {name!r} {text!r}" + ("" if prompts["prompt_name"] else ", the model's default")
