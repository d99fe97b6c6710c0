"""What fastembed's classes share here: names that were registered, constructor arguments, loading when first used."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

from ... import manifest
from ...errors import InvalidInputError, InvalidTypeError, ModelNotFoundError
from ...models.forks import Lock
from ...models.kept_options import KeptOptions
from ...models.options import without_nulls
from ...text.inputs import check_iterable
from ..opening import provider_named
from .descriptions import POOLINGS, DenseModelDescription, Device, ModelDescription, ModelSource, PoolingType

IGNORED = ("enable_cpu_mem_arena",)  # of a session's options: ours never has an arena
ANY_POOLING = (None, PoolingType.DISABLED.value)


Entry = tuple[ModelDescription | None, str | None, bool]


class NotSupportedError(ModelNotFoundError, ValueError):
    """No model under that name; a ValueError too, as fastembed raises."""


class Loaded:
    """A model of ours that is opened when it is first used: `model` is there from then on."""

    model: Any

    def __init__(self, open_it: Callable[[], Any], *, lazy_load: bool) -> None:
        self._open_it, self._opening = open_it, Lock()
        self.lazy_load = lazy_load

    def get(self) -> Any:
        """The model, opened now if it was not yet."""
        if "model" not in vars(self):
            with self._opening.here():
                if "model" not in vars(self):
                    self.model = self._open_it()
        return self.model

    @property
    def _model_dir(self) -> Path:
        path: Path = self.get().path
        return path


class FastembedModel:
    """A model of ours behind fastembed's calls."""

    opens: ClassVar[Any]
    _options = KeptOptions()  # of `opens.from_checkpoint`
    registered: ClassVar[dict[str, Entry]]  # description, pooling, whether to normalize; by name in small letters

    def __init__(
        self,
        model_name: str,
        cache_dir: str | None = None,
        threads: int | None = None,
        providers: Sequence[Any] | None = None,
        cuda: bool | Device = Device.AUTO,
        device_ids: list[int] | None = None,
        lazy_load: bool = False,
        **options: Any,
    ) -> None:
        """Open a model directory or a checkpoint, here or on the hub, or what `add_custom_model` registered.

        Args:
            model_name: its path or name.
            cache_dir: where hub files are kept; None takes FASTEMBED_CACHE_PATH, else huggingface_hub's own.
            threads: None takes what the process may use.
            providers: onnxruntime's name of the one that runs it, with its device_id if wanted.
            cuda: True, False, or AUTO: a GPU where one runs it.
            device_ids: numbers of the GPUs that work.
            lazy_load: open the model when it is first used.
            **options: local_files_only, specific_model_path (a directory), and options of our class: precision, target,
                max_batch_tokens, ...

        Raises:
            NotSupportedError: no such model; a ValueError.
            InvalidInputError: providers and cuda that do not fit together, or a description that is not the model's.
        """
        self.model_name, self.cache_dir, self.threads, self.lazy_load = model_name, cache_dir, threads, lazy_load
        nothing: Entry = (None, None, False)
        description, self._pooling, self._normalize = self.registered.get(model_name.lower(), nothing)
        self._description = description
        place = model_name if description is None else description.sources.hf
        self._place = options.pop("specific_model_path", None) or place
        given = {name: value for name, value in options.items() if name not in IGNORED}
        cache = cache_dir or os.environ.get("FASTEMBED_CACHE_PATH")
        self._options = {
            **placed(providers, cuda, device_ids),
            **({"threads": threads} if threads is not None else {}),
            **({"cache_dir": cache} if cache else {}),
            **given,
        }
        self.model = Loaded(self._open, lazy_load=lazy_load)
        if not lazy_load:
            self.model.get()

    def _open(self) -> Any:
        try:
            made = self.opens.from_checkpoint(self._place, **self._options)
        except ModelNotFoundError as error:
            raise NotSupportedError(str(error)) from error
        try:
            self._check(made.manifest)
        except InvalidInputError:
            made.close()
            raise
        return made

    def _check(self, described: manifest.Manifest) -> None:
        """Whether the model is what it was registered as."""
        dim = getattr(self._description, "dim", None)
        if dim is not None and dim != described.dim:
            raise InvalidInputError(f"{self.model_name} was registered with dim {dim}, the model's is {described.dim}")
        wanted = POOLINGS.get(self._pooling or "")
        if self._pooling not in ANY_POOLING and (wanted,) != tuple(described.pooling):
            raise InvalidInputError(
                f"{self.model_name} was registered with pooling {self._pooling}, the graph's is "
                f"{', '.join(described.pooling)}; pass PoolingType.DISABLED: the graph has done it"
            )

    @classmethod
    def _register(
        cls, description: ModelDescription, pooling: str | None = None, *, normalization: bool = False
    ) -> None:
        name = description.model
        if name.lower() in cls.registered:
            raise InvalidInputError(f"Model {name} is already registered in {cls.__name__}; choose another name")
        cls.registered[name.lower()] = (description, pooling, normalization)

    @classmethod
    def list_supported_models(cls) -> list[dict[str, Any]]:
        """Models that `add_custom_model` registered, as dicts; any checkpoint's name will do beside them."""
        return [asdict(description) for description in cls._list_supported_models()]

    @classmethod
    def _list_supported_models(cls) -> list[ModelDescription]:
        return [entry[0] for entry in cls.registered.values() if entry[0] is not None]

    @classmethod
    def get_embedding_size(cls, model_name: str) -> int:
        """Length of the vectors of a registered model or of a model directory.

        Raises:
            NotSupportedError: neither of the two.
        """
        description = cls.registered.get(model_name.lower(), (None, None, False))[0]
        dim = getattr(description, "dim", None)
        if dim is not None:
            return int(dim)
        place = Path(model_name if description is None else str(description.sources.hf))
        if not (place / manifest.MANIFEST_FILE).is_file():
            known = [entry.model for entry in cls._list_supported_models()]
            raise NotSupportedError(f"{model_name} is neither a model directory nor registered; registered: {known}")
        return manifest.read(place).dim

    @property
    def embedding_size(self) -> int:
        """Length of the vectors."""
        dim: int = self.model.get().dim
        return dim

    def __copy__(self) -> Self:
        """The same engine; what is not open yet is opened once for both."""
        return self._copied(lambda value: value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As a copy, and nothing of what is set is shared."""
        return self._copied(lambda value: copy.deepcopy(value, memo), memo)

    def _copied(self, of: Callable[[Any], Any], memo: dict[int, Any] | None = None) -> Self:
        made, loaded = type(self).__new__(type(self)), self.model
        if memo is not None:
            memo[id(self)] = made  # before what refers to it
        vars(made).update({name: of(value) for name, value in vars(self).items() if name != "model"})
        made.model = Loaded(lambda: copy.copy(loaded.get()), lazy_load=self.lazy_load)
        if "model" in vars(loaded):
            made.model.get()
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        state = {name: value for name, value in vars(self).items() if name != "model"}
        return _restored, (type(self), state)


def _restored(kind: type[FastembedModel], state: dict[str, Any]) -> FastembedModel:
    made = kind.__new__(kind)
    vars(made).update(state)
    made.model = Loaded(made._open, lazy_load=made.lazy_load)
    return made


def placed(providers: Sequence[Any] | None, cuda: bool | str, device_ids: list[int] | None) -> dict[str, Any]:
    """Options of ours for fastembed's arguments of devices."""
    numbers = {"device_ids": list(device_ids)} if device_ids else {}
    if providers:
        if str(cuda) == "True" or device_ids:
            raise InvalidInputError("providers and cuda or device_ids exclude each other; pass one of them")
        first = providers[0]
        name, settings = (first, {}) if isinstance(first, str) else first
        unknown = set(settings) - {"device_id"}
        if unknown:
            raise InvalidInputError(f"options {sorted(unknown)} of provider {name} are not possible here")
        number = settings.get("device_id")
        return {"provider": provider_named(name), **({"device_ids": [int(number)]} if number is not None else {})}
    where = cuda.value if isinstance(cuda, Device) else getattr(cuda, "value", cuda)
    names = {True: "cuda", False: "cpu", "cuda": "cuda", "cpu": "cpu", "auto": "auto"}
    if where not in names:
        raise InvalidInputError(f"cuda {cuda!r} is not possible; pass True, False or Device.AUTO")
    return {"provider": names[where], **(numbers if names[where] != "cpu" else {})}


def texts_of(documents: str | Iterable[str]) -> Iterable[str]:
    """One text as several."""
    if isinstance(documents, str):
        return [documents]
    found = without_nulls(check_iterable(documents))
    return list(found) if isinstance(documents, list) else found


def refuse(call: str, options: Iterable[str]) -> None:
    """Raise InvalidTypeError for keywords that would have changed what a call gives."""
    unknown = sorted(options)
    if unknown:
        raise InvalidTypeError(f"{call} does not take {', '.join(unknown)}")


def counted(counts: Iterable[int], limit: int) -> int:
    """The sum of tokens, each text cut at the limit."""
    return int(sum(min(int(count), limit) for count in counts))


def pieces(texts: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of so many."""
    piece: list[Any] = []
    for text in texts:
        piece.append(text)
        if len(piece) >= size:
            yield piece
            piece = []
    if piece:
        yield piece


def described(
    kind: type[ModelDescription], model: str, sources: Any, model_file: str, facts: dict[str, Any], **own: Any
) -> ModelDescription:
    """A description of what `add_custom_model` was given; sources may be fastembed's own record."""
    if sources is None or getattr(sources, "hf", None) is None:
        raise InvalidInputError(
            f"model {model} has no source that is opened here; pass sources=ModelSource(hf=...) with a hub repository "
            "or a directory that fastembed-rt export made"
        )
    own = {name: value for name, value in own.items() if kind is DenseModelDescription or value is not None}
    return kind(model=model, sources=ModelSource(hf=str(sources.hf)), model_file=model_file, **facts, **own)
