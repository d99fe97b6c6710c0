"""The library that exports are compared with: whether it is here, its models as their authors meant them, its versions.

A model keeps its own limits, prompts and settings; only what the user said against the checkpoint is set on it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import numpy as np

from fastembed_rt.manifest import Manifest
from fastembed_rt.models.prompts import DOCUMENT_PROMPTS

from ..architectures import row_name
from ..architectures.clip import PROJECTED
from ..checkpoint.modules import EOS, WholeTanh
from ..checkpoint.read import Checkpoint
from ..errors import MissingDependencyError, ParityError, UnsupportedCheckpointError, explained
from ..tensors import Stored, some
from ..tokenizer.tokenizer_json import asked_ends
from .tokens import Word

REFERENCE_BATCH = 8
# Names that sentence-transformers had for the same before.
SIMILARITIES = {"cos_sim": "cosine", "dot_score": "dot"}


def can_verify() -> str | None:
    """None when the reference is installed, else what is missing."""
    missing = [name for name in ("torch", "sentence_transformers") if importlib.util.find_spec(name) is None]
    return f"{' and '.join(missing).replace('_', '-')} not installed" if missing else None


def own_code(checkpoint: Checkpoint) -> str | None:
    """None when the reference is transformers' or may be run, else why it may not."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for encoder in (checkpoint, *checkpoint.routes.values()):
        if encoder.trusted or encoder.is_static:
            continue
        known = row_name(encoder.config) == encoder.model_type and encoder.model_type in CONFIG_MAPPING
        if not known or any(isinstance(head, WholeTanh) for head in encoder.heads):
            return "the reference is code of the checkpoint's own, which only --trust-remote-code runs"
    return None


def versions() -> str:
    """What the reference was."""
    names = ("sentence-transformers", "transformers", "torch")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names) + ", float32 on CPU"


def load(kind: str, checkpoint: Checkpoint) -> Any:
    """The checkpoint in sentence-transformers' class `kind`, float32 on CPU, with the user's word where there is one.

    The checkpoint's modules were checked before: code of its own is only its transformer's, and run only where trusted.

    Raises:
        MissingDependencyError: torch or sentence-transformers is not installed, or too old for the class.
        UnsupportedCheckpointError: the reference is code of the checkpoint's own, and not trusted; it does not load.
    """
    missing = can_verify()
    if missing is not None:
        raise MissingDependencyError(f"{missing}; pip install 'fastembed-rt[verify]' to compare with the reference")
    if (untrusted := own_code(checkpoint)) is not None:
        raise UnsupportedCheckpointError(f"{checkpoint.name}: {untrusted}")
    import sentence_transformers
    from transformers.utils import logging

    logging.disable_progress_bar()  # the export says its own steps
    made_by = getattr(sentence_transformers, kind, None)
    if made_by is None:
        raise MissingDependencyError(
            f"sentence-transformers {sentence_transformers.__version__} has no {kind} to compare with; "
            "pip install -U sentence-transformers"
        )
    said_before = logging.get_verbosity()
    if _is_projected(checkpoint) or any(encoder.translated for encoder in _encoders(checkpoint)):
        logging.set_verbosity_error()  # of weights that are not found, all of which are set below
    code = "" if not checkpoint.trusted else "; its code has to lie beside config.json, or in the hub's cache"
    try:
        with explained(f"sentence-transformers does not load {checkpoint.name}{code}"):
            model = made_by(
                str(checkpoint.root), device="cpu", trust_remote_code=checkpoint.trusted, local_files_only=True
            )
    finally:
        logging.set_verbosity(said_before)
    _put_around(model, checkpoint)
    apply_adapters(model, checkpoint)
    model = model.float().eval()
    if getattr(model.tokenizer, "padding_side", "right") == "left" and not _reads_last_place(model):
        # Padding on the left shifts absolute positions, so that vectors depend on the batch: a text alone has none.
        model.tokenizer.padding_side = "right"
    limit = getattr(model, "max_seq_length", None)
    if isinstance(limit, float) and limit.is_integer():  # which it takes from its file, and fails with later
        model.max_seq_length = int(limit)
    said = checkpoint.overrides
    if "prompts" in said:
        model.prompts = {**model.prompts, **said["prompts"]}
    if "default_prompt_name" in said:
        model.default_prompt_name = said["default_prompt_name"]
    _leave_document_prompt(model, checkpoint)
    return model


def _put_around(model: Any, checkpoint: Checkpoint) -> None:
    """Tell its tokenizers of the special tokens around texts that the checkpoint asks for; see tokenizer/ends.py."""
    for encoder in {one.route: one for one in _encoders(checkpoint)}.values():
        asked = asked_ends(encoder)
        if asked is None:
            continue
        tokenizer = _module(model, encoder).tokenizer
        for name, value in asked.arguments.items():
            setattr(
                tokenizer, f"_{name}", value
            )  # what its property reads, and in code of checkpoints' own may not set
        tokenizer.update_post_processor()


def _module(model: Any, encoder: Checkpoint) -> Any:
    """The module, or model, of the reference that holds this encoder."""
    module = model[0] if hasattr(type(model), "__getitem__") else model
    routes = getattr(module, "sub_modules", None)
    return module if routes is None else routes[encoder.route][0]


def _reads_last_place(model: Any) -> bool:
    """Whether padding has to stand on the left: of causal language models the last place of a batch is read."""
    module = model[0] if hasattr(type(model), "__getitem__") else None
    return getattr(module, "transformer_task", None) == "text-generation"


def _leave_document_prompt(model: Any, checkpoint: Checkpoint) -> None:
    """Take out the empty prompt "document" that sentence-transformers adds where the checkpoint has another one.

    encode_document is documented to look for "passage" and "corpus" after it, and finds the empty one first.
    """
    if checkpoint.document_prompt is not None:
        model.prompts = {name: text for name, text in model.prompts.items() if name != DOCUMENT_PROMPTS[0]}


def apply_adapters(model: Any, checkpoint: Checkpoint) -> None:
    """Give the base in `model` its adapters: peft's own layers, or where peft is not installed what was merged here.

    Of a checkpoint whose tensors transformers does not find, all tensors.
    """
    for encoder in {(id(one.adapter), one.route): one for one in _encoders(checkpoint)}.values():
        if encoder.adapter is None and not encoder.translated:
            continue
        module = _module(model, encoder)
        inner = module.auto_model if hasattr(module, "auto_model") else module.model
        if encoder.translated:
            _set_all(inner.float(), encoder)
        elif _applies(encoder, type(inner)):
            assert encoder.adapter is not None
            from peft import PeftModel

            PeftModel.from_pretrained(inner.float(), str(encoder.adapter.folder))  # changes `inner` in place
        else:
            _set_merged(inner.float(), encoder)


def _applies(encoder: Checkpoint, kind: type) -> bool:
    """Whether peft is installed and finds the adapter's layers in a model of this class."""
    assert encoder.adapter is not None
    if importlib.util.find_spec("peft") is None:
        return False
    return not (encoder.adapter.older and kind.__module__.startswith("transformers.models."))


def _encoders(checkpoint: Checkpoint) -> tuple[Checkpoint, ...]:
    return (checkpoint, *checkpoint.routes.values())


def _set_merged(model: Any, encoder: Checkpoint) -> None:
    assert encoder.adapter is not None
    row, changed = encoder.architecture, {name: encoder.stored[name] for name in encoder.adapter.changed}
    newer = {} if row.renames is None else row.renames.of(changed)
    _set(model, {**newer, **changed}, row.prefix)


def _set_all(model: Any, encoder: Checkpoint) -> None:
    """Every weight of the model, which has none of its file's: names there are others.

    Raises:
        ParityError: one that the checkpoint does not have, which would be random.
    """
    left = {name for name, _ in model.named_parameters()} - _set(model, encoder.stored, encoder.architecture.prefix)
    beside = encoder.architecture.heads if encoder.head is None else ("pooler.",)
    computed = sorted(name for name in left if not name.startswith(beside))
    if computed:
        kind = type(model).__name__
        raise ParityError(
            f"{encoder.name}: transformers' {kind} has weights that the checkpoint lacks: {some(computed)}"
        )


def _set(model: Any, stored: Mapping[str, Stored], prefix: str) -> set[str]:
    """Weights of the model from tensors with or without the prefix of a task model; names of those that were set."""
    import torch

    state, found = model.state_dict(), set()
    for name, tensor in stored.items():
        way = next((way for way in (name, prefix + name, name.removeprefix(prefix)) if way in state), None)
        if way is not None:  # else it lies beside the encoder
            state[way].copy_(torch.from_numpy(np.array(tensor.load())))
            found.add(way)
    return found


def applied_adapter(checkpoint: Checkpoint) -> str:
    """How the reference got its adapter, or weights that it does not find itself, for the report."""
    if any(one.translated for one in _encoders(checkpoint)):
        return "with all weights as read at export, since transformers does not find them by the names in their file"
    if importlib.util.find_spec("peft") is None:
        return "the adapter as merged at export, since peft is not installed"
    encoders = [one for one in (checkpoint, *checkpoint.routes.values()) if one.adapter is not None]
    if any(one.adapter is not None and one.adapter.older and not one.trusted for one in encoders):
        return "the adapter as merged at export, since it names layers that transformers 5 calls otherwise"
    return f"the adapter applied by peft {metadata.version('peft')}"


def set_max_length(model: Any, checkpoint: Checkpoint) -> None:
    """The limit that the user set, if any, on the model and on each of its routes; static ones have none."""
    limit = checkpoint.overrides.get("max_length")
    if limit is None:
        return
    # A cross-encoder was itself the first module until version 5, and called its limit max_length.
    routes = getattr(model[0], "sub_modules", None) if hasattr(type(model), "__getitem__") else None
    if routes is None:
        setattr(model, "max_seq_length" if hasattr(type(model), "max_seq_length") else "max_length", limit)
        return
    for encoder in (checkpoint, *checkpoint.routes.values()):
        if encoder.route in routes and not encoder.is_static:
            routes[encoder.route][0].max_seq_length = limit


def sentence_transformer(checkpoint: Checkpoint) -> Any:
    """The checkpoint as a SentenceTransformer; see `load`."""
    model = load("SentenceTransformer", checkpoint)
    try:
        from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    except ImportError:  # before sentence-transformers 6
        from sentence_transformers.models import Normalize, Pooling

    if _is_projected(checkpoint):
        model = _projected(model, checkpoint)
    set_max_length(model, checkpoint)
    said = checkpoint.overrides
    dim = said.get("truncate_dim", model.truncate_dim)
    modules = list(model)
    if "pooling" in said:
        modules[1] = Pooling(
            checkpoint.width, pooling_mode=checkpoint.pooling, include_prompt=checkpoint.include_prompt
        )
    if "normalize" in said:
        while modules and isinstance(modules[-1], Normalize):
            modules.pop()
        modules += [Normalize()] if said["normalize"] else []
    if len(modules) != len(model) or modules != list(model):
        from sentence_transformers import SentenceTransformer

        model = SentenceTransformer(
            modules=modules,
            device="cpu",
            prompts=model.prompts,
            default_prompt_name=model.default_prompt_name,
            similarity_fn_name=model.similarity_fn_name,
        ).eval()
        _leave_document_prompt(model, checkpoint)
    model.truncate_dim = dim
    return model


def _is_projected(checkpoint: Checkpoint) -> bool:
    """Whether it is CLIP's text model with the layer behind its pooling, and nothing around it."""
    return EOS in checkpoint.pooling and checkpoint.config.get("architectures") == [PROJECTED]


def _projected(model: Any, checkpoint: Checkpoint) -> Any:
    """CLIP's text model with the layer behind its pooling: of such a directory the reference makes one without."""
    import transformers
    from sentence_transformers import SentenceTransformer

    module = model[0]
    if not hasattr(module, "modality_config"):
        raise MissingDependencyError(
            f"{versions()}: its modules take no model's own vectors; pip install -U 'sentence-transformers>=5.4'"
        )
    module.model = getattr(transformers, PROJECTED).from_pretrained(str(checkpoint.path)).float().eval()
    module.modality_config = {"text": {"method": "forward", "method_output_name": "text_embeds"}}
    module.module_output_name = "sentence_embedding"
    return SentenceTransformer(modules=[module], device="cpu").eval()


def word_of(model: Any) -> Word:
    """What the reference's tokenizer calls an id."""
    tokenizer = model.tokenizer
    if hasattr(tokenizer, "id_to_token"):
        return tokenizer.id_to_token  # type: ignore[no-any-return]
    return lambda number: str(tokenizer.convert_ids_to_tokens(number))


def check_facts(described: Manifest, model: Any) -> None:
    """Raise ParityError where the manifest says what vectors do not show, and says it wrong."""
    facts: dict[str, tuple[Any, Any]] = {
        "default_prompt_name": (described.default_prompt_name, getattr(model, "default_prompt_name", None)),
        # Prompts without text change nothing; sentence-transformers adds such ones itself.
        "prompts": (_with_text(described.prompts), _with_text(getattr(model, "prompts", {}))),
    }
    similarity = getattr(model, "similarity_fn_name", None)
    if similarity is not None:
        facts["similarity"] = (described.similarity, SIMILARITIES.get(similarity, similarity))
    if described.sparse is not None:
        facts["max_active_dims"] = (described.sparse.max_active_dims, model.max_active_dims)
    for name, (ours, theirs) in facts.items():
        if ours != theirs:
            raise ParityError(f"the manifest has {name} {ours!r}, the checkpoint {theirs!r}; export it again")


def _with_text(prompts: Any) -> list[str]:
    return sorted(name for name, text in prompts.items() if text)
