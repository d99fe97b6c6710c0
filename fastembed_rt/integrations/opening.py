"""How integrations come by a model, named or open already, their own or shared; the framework that each needs."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ..errors import InvalidInputError, InvalidTypeError, MissingDependencyError
from ..models.base import LoadedModel
from ..models.forks import Lock
from ..models.kept_options import kept, without_secrets
from ..text.inputs import check_iterable

if TYPE_CHECKING:
    from .. import EmbeddingModel

# Options of `encode` that decide a vector.
NAMED = ("prompt_name", "prompt", "truncate_dim", "normalize", "precision", "ranges", "calibration_embeddings")
M = TypeVar("M", bound=LoadedModel)
T = TypeVar("T")
_models: weakref.WeakValueDictionary[str, LoadedModel] = weakref.WeakValueDictionary()
_opening = Lock()


def open_model(kind: type[M], model: str | os.PathLike[str] | M, options: Mapping[str, Any] | None = None) -> M:
    """The model that an integration was given.

    Args:
        kind: the class for its task.
        model: a model directory, a checkpoint or a hub repository, opened with `kind.from_checkpoint`; or a model of
            that class, taken as it is, which stays its owner's.
        options: of `from_checkpoint`.

    Raises:
        InvalidInputError: options beside an open model, a model of another task.
        InvalidTypeError: something that is neither a name nor such a model.
        ModelNotFoundError and others: as `from_checkpoint`.
    """
    if isinstance(model, (str, os.PathLike)):
        return kind.from_checkpoint(model, **(options or {}))
    if not isinstance(model, kind):
        raise InvalidTypeError(f"model is {type(model).__name__}, expected a name or an open {kind.__name__}")
    if options:
        raise InvalidInputError(
            f"{', '.join(options)} is for a model that is to be opened, and this one is open: pass it where "
            f"{kind.__name__} is made"
        )
    return model


def name_of(model: str | os.PathLike[str]) -> str:
    """A model's name as a configuration holds it, from which it is opened again elsewhere.

    Raises:
        InvalidTypeError: something else, such as a model that is open.
    """
    if not isinstance(model, (str, os.PathLike)):
        raise InvalidTypeError(
            f"model is {type(model).__name__}, expected a name: a model directory, a checkpoint or a hub repository, "
            "which is opened here and wherever the configuration is read again"
        )
    return os.fspath(model)


def shared_model(kind: type[M], name: str, options: Mapping[str, Any]) -> M:
    """The model of a name and options, opened once in a process and closed with the last object that has it.

    For objects that a framework makes of their configuration, any number of them, and which nobody closes. Others may
    have the model too: it is not to be closed, nor assigned to.

    Args:
        kind: the class for its task.
        name: a model directory, a checkpoint or a hub repository.
        options: of `kind.from_checkpoint`, as a configuration file could hold them.

    Raises:
        ModelNotFoundError and others: as `from_checkpoint`.
    """
    key = repr((kind.__name__, name, sorted({**options}.items())))  # a hub token too: others may not see the model
    with _opening.here():
        found = _models.get(key)
        if found is None or found._closed:
            found = _models[key] = kind.from_checkpoint(name, **options)
    return cast(M, found)


def several(texts: Iterable[T]) -> list[T]:
    """Texts as a list, of whatever holds them in an order; what each of them is, is for the model to check.

    Raises:
        InvalidTypeError: one text, whose letters would be taken for texts; what holds none.
    """
    if isinstance(texts, str):
        raise InvalidTypeError("the texts are one str; pass a list of them")
    return list(check_iterable(texts))


def single(text: str) -> str:
    """One text, where a framework asks for the vector of one.

    Raises:
        InvalidTypeError: several, of which a model would give several vectors; what is no text.
    """
    if not isinstance(text, str):
        raise InvalidTypeError(f"the text is {type(text).__name__}, expected one str")
    return text


def check_fields(kind: str, unknown: Iterable[str]) -> None:
    """Raise InvalidInputError for arguments that a class has no field for: its framework would drop them silently."""
    if names := sorted(unknown):
        raise InvalidInputError(f"{kind} has no {', '.join(names)}; options of the model go into model_kwargs")


def fingerprint(model: EmbeddingModel, role: str | None, options: Mapping[str, Any]) -> str:
    """The name of the vectors that a model gives of texts in a role under options of `encode`: of caches of them.

    Raises:
        InvalidInputError: int8 or uint8 without ranges, whose vectors are those of one call alone.
    """
    return model.fingerprint(role=role, **{name: value for name, value in options.items() if name in NAMED})


def refuse_secrets(options: Mapping[str, Any], label: str, where: str) -> None:
    """Raise InvalidInputError for a hub token among options that a framework stores."""
    if secret := options.keys() - without_secrets(options):
        raise InvalidInputError(
            f"{', '.join(secret)} in {label} would be stored with {where}; set HF_TOKEN, or log in with hf"
        )


class KeepsOptions:
    """Before a model class of pydantic's with `model_kwargs: ModelOptions`: which they are when assigned, too."""

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, kept(value) if name == "model_kwargs" else value)


@contextmanager
def needs(distribution: str, extra: str) -> Iterator[None]:
    """Imports of a framework; where it is not installed, MissingDependencyError names the extra that brings it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "fastembed_rt":
            raise
        raise MissingDependencyError(
            f"{error.name} is not installed; pip install 'fastembed-rt[{extra}]', or {distribution}"
        ) from error
