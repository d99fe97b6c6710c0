"""A checkpoint as its author meant it: config, module chain, prompts, limits; read from a directory, no code is run.

Reads what sentence-transformers writes (modules.json and the modules' folders) and plain transformers directories.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastembed_rt.manifest import ROLES, SIMILARITIES

from .. import settings
from .. import static as static_module
from ..adapters import jina, whole
from ..adapters.lora import MERGE, read_lora
from ..adapters.merge import count_known, merge, weights_of
from ..architectures import ARCHITECTURES, AROUND, Architecture, architecture, clip, row_name
from ..architectures.bert import FLASH
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import ADAPTER, read_json, refuse_adapter
from ..static import read_static
from ..tensors import WEIGHT_FILES, Stored, Tensors, read, some
from ..traced import optimum_export
from . import limits, words
from .modules import EOS, POOLING_MODES, Dense, Head, Truncate, WordMean, module_head, parse_pooling, pooling_of
from .overrides import Overrides, override
from .record import Adapter, Checkpoint
from .routes import Chain, describe, read_routes
from .transformer import EMBEDDINGS, TEXT_FEATURES, Output, Transformer, own_model, read_transformer

__all__ = ["POOLING_MODES", "Checkpoint", "Overrides", "assemble", "load", "override", "parse_pooling"]
SENTENCE_SETTINGS = "config_sentence_transformers.json"
# The classes that sentence-transformers writes as model_type. Of another it makes a plain model with mean pooling.
_CLASSES = ("SentenceTransformer", "CrossEncoder", "SparseEncoder", "MultiVectorEncoder", "ColBERT")

# config.json, how to build it, its tensors, and their files.
Read = tuple[dict[str, Any], Architecture, dict[str, Stored], tuple[Path, ...]]


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
        refuse_adapter(root, WEIGHT_FILES, [])
        if clip.has_features(read_json(root / "config.json")):
            return _of_features(root, root, name, revision, [], exporter, [])
        mode = _plain_pooling(read_json(root / "config.json"))
        notes = [f"no modules.json: {mode} pooling without normalization, as sentence-transformers does"]
        return assemble(root, root, name, revision, notes, exporter=exporter, pooling=(mode,))
    routes = read_routes(root)
    where = "modules.json" if routes.name is None else f"route {routes.name!r}"
    made = _load_chain(root, routes.default, name, revision, exporter, list(routes.notes), where)
    others = {
        role: replace(_load_chain(root, chain, name, revision, exporter, [], f"route {route!r}"), route=route)
        for role, (route, chain) in (routes.others or {}).items()
    }
    return _with_lengths(replace(made, route=routes.name, routes=others))


def _plain_pooling(config: Mapping[str, Any]) -> str:
    """What sentence-transformers pools a plain transformers directory with: the last token of causal models."""
    named = config.get("architectures")
    first = str(named[0]) if isinstance(named, list) and named else ""
    return "lasttoken" if first.endswith("ForCausalLM") and config.get("is_causal", True) else "mean"


def _with_lengths(made: Checkpoint) -> Checkpoint:
    """The checkpoint with an encoder of their own for queries and documents that are cut elsewhere than other texts."""
    encoders = {role: made.routes.get(role, made) for role in ROLES}
    lengths = {role: encoder.lengths[role] for role, encoder in encoders.items() if role in encoder.lengths}
    routes = {
        role: replace(encoders[role], max_length=length, lengths={}, routes={})
        for role, length in lengths.items()
        if length != encoders[role].max_length
    }
    return replace(made, lengths=lengths, routes={**made.routes, **routes})


def check_class(root: Path, *names: str) -> None:
    """Raise UnsupportedCheckpointError where the modules in `root` are not said to be those of one of these classes.

    sentence-transformers makes modules of its own then, and leaves those of the checkpoint out, or some of them.
    """
    path = root / SENTENCE_SETTINGS
    named = read_json(path).get("model_type") if path.is_file() else None
    named = _CLASSES[0] if named is None else named
    if named not in names:
        raise UnsupportedCheckpointError(
            f"{path} has model_type {named!r}, or none, and sentence-transformers' {names[0]} would not make what "
            f"modules.json says: write {names[0]!r} there, if vectors were made so"
        )


def _load_chain(
    root: Path, chain: Chain, name: str, revision: str | None, exporter: str, notes: list[str], where: str
) -> Checkpoint:
    kinds = [kind for kind, _ in chain]
    if kinds[:1] in (["CLIPModel"], ["Transformer"]) and kinds[1:2] != ["Pooling"]:
        path = chain[0][1]
        if read_json(path / "config.json").get("model_type") == clip.WHOLE:
            return _of_features(root, path, name, revision, notes, exporter, chain[1:])
    if kinds[:1] == [words.MODULE]:
        return _of_words(root, name, revision, notes, exporter, chain, where)
    static = kinds[:1] == ["StaticEmbedding"]
    if not static and kinds[:2] != ["Transformer", "Pooling"]:
        raise UnsupportedCheckpointError(
            f"{where} begins with {describe(chain[:2])}; built are Transformer and Pooling, StaticEmbedding, or "
            "WordEmbeddings and Pooling, then Dense, LayerNorm, Dropout and Normalize in any order"
        )
    rest = chain[1:] if static else chain[2:]
    pooling, include_prompt = (("mean",), True) if static else pooling_of(chain[1][1])
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
        heads=tuple(head for kind, folder in rest for head in module_head(kind, folder, notes)),
        weighted=[folder for kind, folder in rest if kind in ("Dense", "LayerNorm")],
    )


def _of_words(
    root: Path, name: str, revision: str | None, notes: list[str], exporter: str, chain: Chain, where: str
) -> Checkpoint:
    """The checkpoint whose chain begins with WordEmbeddings."""
    if exporter == "optimum":
        raise UnsupportedCheckpointError("WordEmbeddings are built from their table, not traced; leave --exporter out")
    path, weights = chain[0][1], next((folder for kind, folder in chain[1:2] if kind == words.WEIGHTS), None)
    rest = chain[1 if weights is None else 2 :]
    if [kind for kind, _ in rest[:1]] != ["Pooling"]:
        raise UnsupportedCheckpointError(
            f"{where} begins with {describe(chain[:3])}; behind WordEmbeddings are built WordWeights or nothing, and "
            "Pooling"
        )
    pooling, _ = pooling_of(rest[0][1])  # prompts are words like others there
    if not set(pooling) <= set(words.POOLINGS) or (weights is not None and pooling != ("mean",)):
        raise UnsupportedCheckpointError(
            f"pooling {'+'.join(pooling)} of WordEmbeddings is not built{' with WordWeights' if weights else ''}"
        )
    config, stored, files, limit = words.read_words(path, weights)
    heads = tuple(head for kind, folder in rest[1:] for head in module_head(kind, folder, notes))
    made = assemble(
        root,
        path,
        name,
        revision,
        notes,
        pooling=pooling,
        heads=heads if weights is None else (WordMean(config["hidden_size"] - 1), *heads),
        weighted=[folder for kind, folder in rest if kind in ("Dense", "LayerNorm")],
        table=(config, static_module.ARCHITECTURE, stored, files),
    )
    return replace(made, max_length=limit)


def _of_features(
    root: Path, path: Path, name: str, revision: str | None, notes: list[str], exporter: str, rest: Chain
) -> Checkpoint:
    """The checkpoint whose model in `path` pools by itself and has a layer behind that; `rest`: what follows it."""
    if exporter == "optimum":
        raise UnsupportedCheckpointError("CLIP is built from its weights, not traced; leave --exporter out")
    heads = tuple(head for kind, folder in rest for head in module_head(kind, folder, notes))
    weighted = [folder for kind, folder in rest if kind in ("Dense", "LayerNorm")]
    made = assemble(
        root, path, name, revision, notes, pooling=(EOS,), heads=heads, weighted=weighted, output=TEXT_FEATURES
    )
    if (layer := made.stored.get(clip.PROJECTION)) is None:
        raise CheckpointError(f"{path} has no {clip.PROJECTION}, the layer that makes vectors of texts; is it whole?")
    sizes = made.config["hidden_size"], made.config["projection_dim"]
    projection = Dense(Tensors({"linear.weight": layer}), *sizes, bias=False, activation="Identity", residual=False)
    return replace(made, heads=(projection, *made.heads))


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
    output: Output = EMBEDDINGS,
    table: Read | None = None,
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
        output: what the task takes of the transformer.
        table: what has been read in place of a transformer.

    Raises:
        CheckpointError, UnsupportedCheckpointError: see `load`.
    """
    static = static or table is not None
    chained = (root / "modules.json").is_file()
    refuse_adapter(path, WEIGHT_FILES, notes)
    config, row, of_base, weight_files = table or (_static if static else _built)(path, exporter, notes)
    translation = jina.translation_of(path)
    if translation is None:
        adapter, stored = _merged(path, row, of_base, weight_files, notes)
    else:
        adapter, stored = _translated(path, row, of_base, weight_files, translation, notes)
    weight_files += () if adapter is None else adapter.files
    weight_files += tuple(file for folder in weighted for file in read(folder)[1])
    module = Transformer() if static else read_transformer(path, output, notes, chained=chained)
    own_code = None if static else own_model(config, output)
    if own_code is not None and not row.own_code:
        notes.append(
            f"config.json names code of the checkpoint's own for the model ({own_code}), which is not run: built "
            f"is transformers' {config['model_type']}"
        )
    prompts, default_prompt_name, similarity, truncate_dim = _sentence_settings(root, similarities, notes, chained)
    if truncate_dim is not None:
        heads = (*heads, Truncate(truncate_dim))  # behind Normalize: sentence-transformers does not normalize again
    most = row.positions(config)
    allowed = limits.Limits(_saved_limit(path)) if static else module.limits

    def capped(length: int | None) -> int:
        if length is None and not static:
            notes.append(f"no limit on the length of texts is named; they are cut at the {most} positions of the model")
        elif length is not None and length > most:
            notes.append(f"max_length {length} is more than the {most} positions of the model; capped")
        return min(length or most, most)

    return Checkpoint(
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
        max_length=capped(allowed.all),
        lengths={role: capped(length) for role, length in allowed.by_role.items()},
        lower_case=module.lower_case,
        tokenizer_settings=module.processor,
        padding=module.padding,
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity=similarity,
        notes=tuple(dict.fromkeys(notes)),
        adapter=adapter,
        translated=translation is not None,
        own_model=own_code,
        chat=module.chat,
    )


def _merged(
    path: Path, row: Architecture, stored: Mapping[str, Stored], files: tuple[Path, ...], notes: list[str]
) -> tuple[Adapter | None, Mapping[str, Stored]]:
    """The adapter that lies beside a base's weights, if any, and the tensors with it merged into them."""
    folder = path / whole.FOLDER
    if not folder.is_dir():
        return None, stored
    if row.traced:
        raise UnsupportedCheckpointError(f"a model that optimum traces takes no adapter here: {MERGE}")
    base = whole.base_of(path)
    older = False
    if row.renames is not None:
        renamed = row.renames.of(stored)
        older = count_known(stored, folder, row.prefix) >= count_known(renamed, folder, row.prefix)
        stored = stored if older else renamed
    made = merge(stored, folder, read_lora(folder), row.prefix, row.heads)
    if row.prefix == "" and (shared := sorted(made.changed & {"shared.weight", "encoder.embed_tokens.weight"})):
        raise UnsupportedCheckpointError(
            f"the adapter changes {shared[0]}, a table that the model holds under two names, and peft only one of "
            f"them: {MERGE}"
        )
    notes.append(f"a LoRA merged in float32 into {base.name}: {len(made.changed)} tensors of {len(made.stored)}")
    if made.unplaced:
        notes.append(
            f"of the adapter, what lies beside the encoder and is not in the base is left out: {some(made.unplaced)}"
        )
    adapter = Adapter(
        folder=folder,
        settings=folder / ADAPTER,
        older=older,
        files=(weights_of(folder),),
        chosen=base.adapter,
        base=base.name,
        base_revision=base.revision,
        base_files=files,
        changed=made.changed,
        unplaced=made.unplaced,
    )
    return adapter, made.stored


def _translated(
    path: Path,
    row: Architecture,
    stored: Mapping[str, Stored],
    files: tuple[Path, ...],
    translation: jina.Translation,
    notes: list[str],
) -> tuple[Adapter | None, Mapping[str, Stored]]:
    """The adapter of a transformer of Jina's own code, if one was chosen, and all tensors as transformers has them."""
    if row.traced:
        raise UnsupportedCheckpointError("a model of Jina's own code is built, not traced; leave --exporter out")
    names = FLASH if row.renames is None else row.renames
    where = files[0].name if len(files) == 1 else translation.name
    merged, changed = jina.merged(stored, translation, where)
    made = names.of(merged)
    notes.append(
        f"config.json names code of the checkpoint's own ({jina.CODE}), which is not run: built is the same maths, as "
        "transformers' class has it"
    )
    if translation.task is None:
        if translation.tasks:
            notes.append(f"none of the adapters {', '.join(translation.tasks)} is merged")
        return None, made
    changed = frozenset(names.of({name: merged[name] for name in changed}))
    notes.append(f"the adapter {translation.task} merged in float32: {len(changed)} tensors of {len(made)}")
    adapter = Adapter(
        folder=path / jina.PUBLISHED,
        settings=path / jina.PUBLISHED / "config.json",
        older=True,
        files=files,  # which hold it beside the base
        chosen=translation.task,
        base=translation.name,
        base_revision=translation.revision,
        base_files=files,
        changed=changed,
        unplaced=(),
    )
    return adapter, made


def _built(path: Path, exporter: str, notes: list[str]) -> Read:
    """config.json, how to build it, its tensors, and their files."""
    config = read_json(path / "config.json")
    if "model_type" not in config:
        raise CheckpointError(f"{path / 'config.json'} has no model_type; is this a transformers checkpoint?")
    _refuse_quantized(config, path / "config.json")
    if exporter == "optimum" or (
        exporter == "auto" and row_name(config) not in ARCHITECTURES and optimum_export.available()
    ):
        if row_name(config) != config["model_type"] and str(config["model_type"]) not in AROUND:
            raise UnsupportedCheckpointError(
                f"{path / 'config.json'} says model_type {config['model_type']!r} of code of the checkpoint's own "
                f"({row_name(config)}), which optimum does not run; leave --exporter out"
            )
        row = optimum_export.architecture(path)
        notes += [f"model_type {config['model_type']}: traced by optimum", *row.notes]
    else:
        row = architecture(config, traceable=exporter != "builder")
    if str(config["model_type"]) in AROUND:
        notes.append(f"of model_type {config['model_type']} the text model is built: no images, films or sounds")
    config = dict(row.config(config))
    return config, row, *read(path, notes)


def _refuse_quantized(config: Mapping[str, Any], where: Path) -> None:
    """Raise UnsupportedCheckpointError where transformers reads quantized weights, or quantizes what it reads."""
    said = config.get("quantization_config")
    if said is None:
        return
    said = said if isinstance(said, dict) else {}
    # Where no method is named, transformers takes these for bitsandbytes.
    of_bits = any(said.get(key) for key in ("load_in_4bit", "load_in_8bit"))
    method = said.get("quant_method") or ("bitsandbytes" if of_bits else None)
    raise UnsupportedCheckpointError(
        f"{where} has a quantization_config (method {method!r}): the model computes with quantized weights, which is "
        "not built; export the checkpoint that they were made from, or write its weights as floats "
        "(dequantize() of transformers' model, then save_pretrained()) without that key"
    )


def _static(path: Path, exporter: str, notes: list[str]) -> Read:
    if exporter == "optimum":
        raise UnsupportedCheckpointError("a StaticEmbedding is built from its table, not traced; leave --exporter out")
    config, stored, files = read_static(path)
    return config, static_module.ARCHITECTURE, stored, files


def _saved_limit(path: Path) -> int | None:
    """The truncation that tokenizer.json was saved with, which a StaticEmbedding keeps to."""
    file = path / "tokenizer.json"
    saved = read_json(file).get("truncation") if file.is_file() else None
    return limits.tokens(saved.get("max_length"), "truncation max_length", file) if isinstance(saved, dict) else None


def _sentence_settings(
    root: Path, similarities: Sequence[str], notes: list[str], chained: bool
) -> tuple[dict[str, str], str | None, str, int | None]:
    """Prompts, default prompt, similarity and truncate_dim of config_sentence_transformers.json."""
    path = root / SENTENCE_SETTINGS
    if not path.is_file():
        return {}, None, similarities[0], None
    if not chained:
        notes.append(f"{path.name} is not read: there is no modules.json, and so it is in sentence-transformers")
        return {}, None, similarities[0], None
    config = read_json(path)
    settings.check(settings.SENTENCE, config, path.name, notes)
    if (kind := config.get("model_type", _CLASSES[0])) not in _CLASSES:
        raise UnsupportedCheckpointError(
            f"{path}: model_type {kind!r} is not known, and sentence-transformers would leave modules.json unread; "
            f"known: {', '.join(_CLASSES)}"
        )
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, (str, type(None))) for text in prompts.values()):
        raise CheckpointError(f"{path} has prompts that are not texts by name")
    prompts = {name: text or "" for name, text in prompts.items()}  # null is sentence-transformers' empty prompt
    default = config.get("default_prompt_name")
    if default is not None and (not isinstance(default, str) or default not in prompts):
        raise CheckpointError(f"{path}: default_prompt_name {default!r} is not one of {sorted(prompts)}")
    similarity = config.get("similarity_fn_name")
    if similarity is not None and not isinstance(similarity, str):
        raise CheckpointError(f"{path}: similarity_fn_name {similarity!r}; known: {', '.join(similarities)}")
    chosen = next((name for name in similarities if name == similarity), similarities[0])
    if similarity and chosen != similarity:
        notes.append(
            f"similarity_fn_name {similarity!r} is none of {', '.join(similarities)}: {chosen} instead, as in "
            "sentence-transformers"
        )
    truncate_dim = config.get("truncate_dim")
    if truncate_dim is not None and (type(truncate_dim) is not int or truncate_dim < 1):
        raise CheckpointError(f"{path}: truncate_dim {truncate_dim!r} is not a number of dimensions")
    return prompts, default, chosen, truncate_dim
