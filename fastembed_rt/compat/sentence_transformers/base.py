"""What SentenceTransformer, CrossEncoder and SparseEncoder share: arguments, prompts, texts; with devices and files."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

from ...errors import InvalidInputError, ModelNotFoundError
from ...manifest import ROLES
from ...models.base import WithMaxLength
from ...models.roles import WithRoles
from ..model_card import ModelCardData
from ..opening import is_short, load_options, their_errors
from .devices import OnDevice
from .files import Saved

logger = logging.getLogger("fastembed_rt.compat")

# What belongs to torch modules, by why it is not here.
TRAINING = "models are not trained here: train with sentence-transformers, then export"
MODULES = "a model directory has one finished graph and no torch modules"
ABSENT = {
    **dict.fromkeys(("fit", "old_fit", "train", "backward", "zero_grad", "requires_grad_", "compile"), TRAINING),
    **dict.fromkeys(("gradient_checkpointing_enable", "smart_batching_collate"), TRAINING),
    **dict.fromkeys(("add_adapter", "load_adapter", "set_adapter", "enable_adapters", "disable_adapters"), TRAINING),
    **dict.fromkeys(("active_adapters", "active_adapter", "get_adapter_state_dict", "delete_adapter"), TRAINING),
    **dict.fromkeys(("parameters", "named_parameters", "modules", "named_modules", "children"), MODULES),
    **dict.fromkeys(("named_children", "buffers", "state_dict", "load_state_dict", "forward", "auto_model"), MODULES),
    **dict.fromkeys(("transformers_model", "register_forward_hook", "_modules", "append", "apply", "merge"), MODULES),
    **dict.fromkeys(("_first_module", "_last_module", "model"), MODULES),
}


class CompatModel(OnDevice, Saved):
    """A model of ours behind the calls of sentence-transformers' BaseModel."""

    opens: ClassVar[type[WithMaxLength]]
    model_type: ClassVar[str]
    organization: ClassVar[str]  # of the hub, whose models are known by their names alone
    default_prompts: ClassVar[Mapping[str, str]] = {}
    positions: ClassVar[Sequence[str]] = ()  # parameters of `encode` behind the texts
    _model: Any

    def _set_up(
        self,
        name: Any,
        *,
        device: Any,
        prompts: Mapping[str, str] | None,
        default_prompt_name: str | None,
        cache_folder: Any,
        trust_remote_code: bool,
        revision: str | None,
        local_files_only: bool,
        token: Any,
        model_kwargs: Mapping[str, Any] | None,
        processor_kwargs: Mapping[str, Any] | None,
        config_kwargs: Mapping[str, Any] | None,
        model_card_data: Any,
        backend: str,
        modules: Any,
        ours: Mapping[str, Any],
        max_length: int | None = None,
    ) -> None:
        if modules is not None or name is None:
            raise InvalidInputError(
                f"{type(self).__name__} opens a checkpoint or model directory by its path or name; modules= are "
                "torch's: save the model with sentence-transformers, and give that directory"
            )
        options, limit = load_options(
            name,
            device=device,
            backend=backend,
            model_kwargs=model_kwargs,
            processor_kwargs=processor_kwargs,
            config_kwargs=config_kwargs,
            ours=ours,
        )
        hub = {
            "revision": revision,
            "token": token,
            "cache_dir": cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME"),
            "local_files_only": local_files_only,
        }
        self._options = {**options, **{key: value for key, value in hub.items() if value is not None}}
        self._name = name
        self.trust_remote_code = trust_remote_code
        self._open(max_length if max_length is not None else limit)
        self.prompts: dict[str, str] = {**self.default_prompts, **self._model.manifest.prompts, **(prompts or {})}
        self.default_prompt_name = default_prompt_name or self._model.manifest.default_prompt_name
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise InvalidInputError(
                f"default prompt name {self.default_prompt_name!r} is not one of the prompts {list(self.prompts)}"
            )
        self.backend = backend
        self.model_card_data = ModelCardData() if model_card_data is None else model_card_data

    def _open(self, limit: int | None) -> None:
        """Load the model of ours."""
        self._model = self._opened(limit, self._options)

    def _opened(self, limit: int | None, options: Mapping[str, Any]) -> Any:
        """A model of ours with these options, a checkpoint's after it was exported."""
        given: dict[str, Any] = {"max_length": limit, "trust_remote_code": self.trust_remote_code, **options}
        with their_errors(self._name):
            if not is_short(self._name):
                return self.opens.from_checkpoint(self._name, **given)
            full = f"{self.organization}/{self._name}"
            try:
                return self.opens.from_checkpoint(full, **given)
            except ModelNotFoundError as first:
                try:
                    return self.opens.from_checkpoint(self._name, **given)
                except ModelNotFoundError as error:
                    raise ModelNotFoundError(f"{error}; as {full}: {first}") from error

    def __getattr__(self, name: str) -> NoReturn:
        why = ABSENT.get(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}" + (f": {why}" if why else ""))

    def __getitem__(self, index: int) -> NoReturn:
        raise TypeError(f"{type(self).__name__} has no module {index!r}: {MODULES}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Opened again where it arrives, by its name; what refers to the model itself comes behind it."""
        state = {name: value for name, value in vars(self).items() if name != "_model"}
        opening = {name: state[name] for name in ("_name", "_options", "trust_remote_code")}
        return _restored, (type(self), opening, self._given_limit()), state

    def __copy__(self) -> Self:
        """The same engine, with settings of its own."""
        return self._copied(lambda value: value)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """As a copy, and nothing of what is set is shared."""
        return self._copied(lambda value: copy.deepcopy(value, memo), memo)

    def _copied(self, of: Callable[[Any], Any], memo: dict[int, Any] | None = None) -> Self:
        made = type(self).__new__(type(self))
        if memo is not None:
            memo[id(self)] = made  # before what refers to it
        vars(made).update({name: of(value) for name, value in vars(self).items() if name != "_model"})
        made._model = copy.copy(self._model)
        return made

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._model!r})"

    # Prompts

    def _resolve_prompt(self, prompt: str | None, prompt_name: str | None) -> str:
        if prompt is not None:
            if prompt_name is not None:
                logger.warning("prompt and prompt_name are both given; prompt_name %r is ignored", prompt_name)
            return prompt
        name = self.default_prompt_name if prompt_name is None else prompt_name
        if name is None:
            return ""
        text = self.prompts.get(name)
        if text is None and prompt_name is not None:
            raise InvalidInputError(
                f"prompt name {name!r} is not among the prompts {list(self.prompts)}; pass prompt=TEXT for another"
            )
        return text or ""

    def _encode_role(
        self, role: str, names: Sequence[str], inputs: Any, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        """`encode` for texts in a role: with the first of the prompts `names` that there is, if no other is given."""
        by_place = placed(f"{type(self).__name__}.encode_{role}", self.positions, arguments, options)
        given = {"prompt_name": None, "prompt": None, **by_place, **options}
        if given["prompt_name"] is None and given["prompt"] is None:
            given["prompt_name"] = next((name for name in names if name in self.prompts), None)
        # By name, as there: who overrides `encode` finds what they look for.
        encode: Callable[..., Any] = self.encode
        return encode(inputs=the_texts(inputs, given), **given, task=role)

    def _for_task(self, model: Any, task: str | None) -> Any:
        """The encoder that a model with several has for a task.

        Raises:
            InvalidInputError: a task for which it has none.
        """
        described = model.manifest
        if task in described.routes:  # also without a Router, where a role is cut elsewhere
            return model.for_role(task)
        if task is None or described.route is None or task == described.route:  # without a Router, tasks are one
            return model
        named = {route.route: role for role, route in described.routes.items()}
        role = task if task in ROLES else named.get(task)  # a route may have the name of another role
        if role is None:
            raise InvalidInputError(f"the model has no encoder for task {task!r}; known: {', '.join(ROLES)}")
        return model.for_role(role)

    def set_pooling_include_prompt(self, include_prompt: bool) -> None:
        """Refused unless it changes nothing: pooling is in the graph.

        Raises:
            InvalidInputError: another setting than the export's.
        """
        if include_prompt != self._model.manifest.include_prompt:
            raise InvalidInputError(
                f"include_prompt={include_prompt} is not possible: pooling is part of the graph; set it in the "
                "checkpoint's pooling configuration and export again"
            )

    # Text

    @property
    def max_seq_length(self) -> int:
        """Tokens after which texts are cut, special tokens included. Assigned to, it holds for the calls to come."""
        limit: int = self._model.max_length
        return limit

    @max_seq_length.setter
    def max_seq_length(self, value: int) -> None:
        self._model.max_length = value

    def _given_limit(self) -> int | None:
        """What opens another model with the limit of this one; None where the encoders for roles keep their own."""
        model = self._model
        return model.given_max_length if isinstance(model, WithRoles) else self.max_seq_length

    def get_max_seq_length(self) -> int:
        """`max_seq_length`."""
        return self.max_seq_length

    @property
    def tokenizer(self) -> Any:
        """transformers' fast tokenizer where transformers is installed, else the `tokenizers.Tokenizer`; a copy."""
        from .tokens import tokenizer

        return tokenizer(self._model)

    @property
    def processor(self) -> Any:
        """`tokenizer`."""
        return self.tokenizer

    def preprocess(
        self, inputs: Any, prompt: str | None = None, *, task: str | None = None, **others: Any
    ) -> dict[str, Any]:
        """Padded ids of texts, or of pairs: "input_ids", "attention_mask" and what belongs to them, (n, tokens) int64.

        Tensors where torch is installed, else arrays.

        Args:
            inputs: texts, or pairs of them.
            prompt: a text to put in front.
            task: "query" or "document": whose tokenizer, where the model has an encoder for each.
            **others: refused.

        Raises:
            InvalidInputError: another keyword, or a task for which the model has no encoder.
        """
        from .tokens import features

        refuse_unknown(f"{type(self).__name__}.preprocess", others)
        found = features(self._for_task(self._model, task), inputs, prompt or "")
        return {**found, "task": task} if found and self._model.manifest.route is not None else found

    def tokenize(self, texts: Any, **options: Any) -> dict[str, Any]:
        """`preprocess` under its older name."""
        return self.preprocess(texts, **options)

    @property
    def modalities(self) -> list[str]:
        """What goes in: text."""
        return ["text"]

    def supports(self, modality: Any) -> bool:
        """Whether `modality` is text."""
        return bool(modality == "text")

    def get_model_kwargs(self) -> list[str]:
        """Keywords of the modules that `encode` passes on: none."""
        return []

    def get_backend(self) -> str:
        """What runs the model: onnx."""
        return "onnx"

    def evaluate(self, evaluator: Callable[..., Any], output_path: str | None = None) -> Any:
        """What an evaluator of sentence-transformers finds of this model.

        Args:
            evaluator: called with the model and the path.
            output_path: a directory for its files, made if it is not there.
        """
        if output_path is not None:
            Path(output_path).mkdir(parents=True, exist_ok=True)
        return evaluator(self, output_path)

    def close(self) -> None:
        """Give memory and threads back; further use is an error. Ours: sentence-transformers has no such call."""
        self._model.close()


def _restored(kind: type[CompatModel], opening: dict[str, Any], limit: int | None) -> CompatModel:
    """What was pickled: loaded again; what had been set is set by pickle."""
    made = kind.__new__(kind)
    vars(made).update(opening)
    made._open(limit)
    return made


def placed(who: str, names: Sequence[str], arguments: Sequence[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Positional arguments by their names.

    Raises:
        TypeError: more of them than names, or one that is given by its name too.
    """
    if len(arguments) > len(names):
        raise TypeError(f"{who} takes at most {len(names) + 1} positional arguments, got {len(arguments) + 1}")
    found = dict(zip(names, arguments, strict=False))
    if twice := found.keys() & options.keys():
        raise TypeError(f"{who} got {', '.join(sorted(twice))} twice, by place and by name")
    return found


def the_texts(inputs: Any, options: dict[str, Any]) -> Any:
    """What a call was given to work on: `inputs`, or `sentences` of its keywords, which is taken out of them.

    Raises:
        TypeError: both.
    """
    if "sentences" not in options:
        return inputs
    if inputs is not None:
        raise TypeError("inputs and sentences are both given; they are two names of one argument")
    return options.pop("sentences")


def renamed(options: dict[str, Any], **names: str) -> dict[str, Any]:
    """Keyword arguments with the names of today for those of earlier versions; the newer one wins."""
    for old, new in names.items():
        if old in options:
            value = options.pop(old)
            options.setdefault(new, value)
    return options


def refuse_unknown(who: str, options: Mapping[str, Any]) -> None:
    """Raise InvalidInputError, as sentence-transformers raises ValueError, for keywords that no module takes."""
    if options:
        raise InvalidInputError(f"{who} does not take {', '.join(sorted(options))}")
