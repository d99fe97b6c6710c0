"""Calls written for another library answered with what to write here."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
COMPAT = "fastembed_rt.compat.sentence_transformers"
FASTEMBED = "fastembed_rt.compat.fastembed"
_FIRST = "give the texts first, without a name"
_TOKENS = "batches are bounded by tokens: leave it out, or load the model with max_batch_tokens="
_PROVIDER = "load the model with provider='cpu' or 'cuda'"
_DEVICES = "load the model with device_ids=[0, 1], and pass all texts in one call"
_NUMPY = "vectors are numpy arrays: leave it out"
_TORCH = "vectors are numpy arrays: torch.from_numpy(vectors)"
# What others call it, and what to write here; of a method or of a constructor.
CALLS = {
    "normalize_embeddings": "normalize=",
    "normalise": "normalize=",
    "batch_size": _TOKENS,
    "convert_to_numpy": _NUMPY,
    "convert_to_tensor": _TORCH,
    "convert_to_sparse_tensor": "vectors are SparseVector, with indices and values",
    "save_to_cpu": _NUMPY,
    "output_value": "output='tokens' for 'token_embeddings'; leave it out for 'sentence_embedding'",
    "sentences": _FIRST,
    "documents": _FIRST,
    "queries": _FIRST,
    "query": _FIRST,
    "texts": _FIRST,
    "text": _FIRST,
    "input": _FIRST,
    "device": _PROVIDER,
    "pool": _DEVICES,
    "parallel": _DEVICES,
    "chunk_size": _DEVICES,
    "num_workers": "threads are chosen when the model is loaded, with threads=",
    "show_progress": "show_progress_bar=",
    "output_dtype": "precision=",
    "encode_precision": "precision=",
    "dimensions": "truncate_dim=",
    "dim": "truncate_dim=",
    "activation_fn": "activation='sigmoid' or 'identity'",
    "activation_fct": "activation='sigmoid' or 'identity'",
    "return_documents": "leave it out: what rank gives has .text",
    "task": "prompt_name=",
    "instruction": "prompt=",
    "max_length": "load the model with max_length=, or assign to model.max_length",
    "max_seq_length": "load the model with max_length=, or assign to model.max_length",
    "truncate": "load the model with truncation=",
}
LOADING = {
    "model_name_or_path": "give the directory or name first",
    "model_name": "give the directory or name first",
    "model": "give the directory or name first",
    "device": "provider='cpu' or 'cuda'",
    "devices": "device_ids=[0, 1]",
    "cuda": "provider='cuda'",
    "providers": "provider='cpu' or 'cuda'",
    "cache_folder": "cache_dir=",
    "use_auth_token": "token=",
    "trust_remote_code": "leave it out: a model directory holds no code",
    "backend": "leave it out: graphs run in onnxruntime",
    "model_kwargs": "precision=, provider=, threads= and others by name",
    "tokenizer_kwargs": "max_length= and truncation=",
    "processor_kwargs": "max_length= and truncation=",
    "config_kwargs": "leave it out: the graph has the configuration in it",
    "similarity_fn_name": "export the checkpoint with the similarity that it is for",
    "max_seq_length": "max_length=",
    "torch_dtype": "precision='fp32', 'bf16', 'fp16' or 'int8'",
    "dtype": "precision='fp32', 'bf16', 'fp16' or 'int8'",
    "default_activation_function": "activation= of predict",
    "num_labels": "leave it out: the model knows its labels",
    "lazy_load": "leave it out: models load in a fraction of a second",
}


def answer(name: str, known: Iterable[str], foreign: dict[str, str]) -> str:
    """What to write instead of a keyword."""
    import difflib  # only for mistakes

    if name in foreign:
        return foreign[name]
    near = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}=?" if near else f"it takes {', '.join(sorted(known))}"


def answered(method: F) -> F:
    """A method whose callers, where Python refuses their arguments, read what it takes."""

    @functools.wraps(method)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except TypeError as error:
            inside = error.__traceback__ is not None and error.__traceback__.tb_next is not None
            if inside:  # the call was taken: this is about something else
                raise
            why = _explained(method, type(self), arguments, options)
            raise TypeError(f"{error}" if why is None else why) from None

    return call  # type: ignore[return-value]


def _explained(
    method: Callable[..., Any], kind: type, arguments: tuple[Any, ...], options: dict[str, Any]
) -> str | None:
    parameters = list(inspect.signature(method).parameters.values())
    if parameters[-1].kind is inspect.Parameter.VAR_KEYWORD:  # it passes them on to `encode`
        parameters = list(inspect.signature(kind.encode).parameters.values())  # type: ignore[attr-defined]
    first, *rest = [entry.name for entry in parameters if entry.name != "self"]
    called = f"{kind.__name__}.{method.__name__}"
    keywords = {entry.name for entry in parameters if entry.kind is entry.KEYWORD_ONLY}
    wrong = [name for name in options if name not in keywords and name != first]
    keep = f"To keep calls as they are: {COMPAT} or {FASTEMBED}"
    if wrong:
        said = "; ".join(f"{name}: {answer(name, keywords, CALLS)}" for name in wrong)
        return f"{called} has no {', '.join(wrong)}. {said}. {keep}"
    if len(arguments) > len(rest) - len(keywords) + 1:
        return f"{called} takes {first} alone without a name; write {', '.join(sorted(keywords))} by name. {keep}"
    return None
