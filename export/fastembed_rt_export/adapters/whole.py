"""A whole checkpoint made of an adapter and its base: links to the files of both, in a directory that goes again.

The base gives config.json and the weights, and all the rest where the adapter's directory is peft's alone. Where
sentence-transformers wrote it, its modules and settings count. Each adapter lies in a folder beside its base's weights,
where `checkpoint.read` finds it and transformers does not.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from fastembed_rt.errors import FastembedRtError, InvalidInputError, ModelNotFoundError
from fastembed_rt.hub.adapters import chosen
from fastembed_rt.hub.resolve import ADAPTERS, CHAT_TEMPLATES, Located, is_text
from fastembed_rt.manifest import ROLES

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import ADAPTER, ADAPTER_WEIGHTS, inside, module_entries, read_json
from ..tensors import WEIGHT_FILES, weight_files
from . import jina, jina_v5
from .lora import read_lora
from .merge import weights_of
from .routed import ROUTER, Chosen, folder_of, refuse_unknown, write_router

FOLDER = "adapter-to-merge"
_BASE_FILE = "base.json"
_CONFIG = "config.json"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "sentencepiece.bpe.model", "spiece.model")
_NOT_OF_TOKENIZER = (ADAPTER, "modules.json", "config_sentence_transformers.json")
# What lies beside a transformer and is the whole checkpoint's.
_OF_CHECKPOINT = ("modules.json", "config_sentence_transformers.json", "README.md")
Find = Callable[[str, str | None], Located]  # a checkpoint by its name and revision


@dataclass(frozen=True, kw_only=True)
class Base:
    """What an adapter is merged into, as the manifest may tell the world."""

    name: str
    revision: str | None = None
    adapter: str | None = None  # folder of the checkpoint that the adapter is from, where it was one of several


@contextmanager
def whole(
    located: Located, base: str | None, find: Find, say: Callable[[str], None], adapter: str | None = None
) -> Iterator[Located]:
    """The checkpoint itself, or where it is an adapter one made of it and its base.

    Args:
        located: what is to be exported.
        base: name of the base against what the adapter says.
        find: gets a checkpoint.
        say: called with a line on each base.
        adapter: folder of the checkpoint with the adapter, where it holds several, or a task of Jina's own code; for
            each role one, as `hub.adapters.chosen` reads it.

    Raises:
        InvalidInputError: a base for what is no adapter; no adapter in that folder.
        ModelNotFoundError: the base cannot be had.
        CheckpointError, UnsupportedCheckpointError: the adapter is damaged, or is none that can be merged.
    """
    names = chosen(adapter)
    if (own := jina.own_transformer(located.path)) is not None:
        if base is not None:
            raise InvalidInputError(f"{located.name} has the weights that its adapters are for; leave --base out")
        with _of_jina(located, own, names, say) as made:
            yield made
        return
    if jina_v5.is_own(located.path):
        with _of_jina_v5(located, jina_v5.checked(located.path, names, located.name), base, find, say) as made:
            yield made
        return
    if names and "" not in names:
        with _one_per_role(located, names, base, say) as made:
            yield made
        return
    if adapter is not None:
        folder = _chosen(located.path, adapter, located.name)
        if _has_model(located.path):
            if base is not None:
                raise InvalidInputError(
                    f"{located.name} has the weights that its adapters are for, so there is no other base; leave "
                    "--base out"
                )
            with _one_of_several(located, adapter, folder, say) as made:
                yield made
            return
        located = replace(located, path=folder)  # adapters and nothing else
    folders = _with_adapters(located.path)
    if folders:
        with _beside_bases(located, folders, adapter, base, find, say) as made:
            yield made
        return
    if base is not None:
        raise InvalidInputError(f"{located.name} is no adapter (no {ADAPTER}), so it has no base; leave --base out")
    if named := located.adapters or _named(located.path):
        say(f"note: {located.name} holds the adapters {', '.join(named)}; none is merged, --adapter names one")
    yield located


@contextmanager
def _one_of_several(located: Located, adapter: str, folder: Path, say: Callable[[str], None]) -> Iterator[Located]:
    """A checkpoint with one of the adapters that lie in its folders, on its own weights."""
    read_lora(folder)
    weights_of(folder)
    with _place(located.path, folder) as (place, _):
        _link_all(located.path, place)
        here = place / _transformer(located.path).relative_to(located.path)
        say(f"merging the adapter {adapter} into {located.name}")
        _set_apart(folder, here, Base(name=located.name, revision=located.revision, adapter=adapter))
        yield replace(located, path=place)


@contextmanager
def _one_per_role(located: Located, names: Chosen, base: str | None, say: Callable[[str], None]) -> Iterator[Located]:
    """A checkpoint whose queries and documents take different adapters of those in its folders, on its own weights."""
    folders = {role: _chosen(located.path, name, located.name) for role, name in names.items()}
    root = located.path
    if base is not None or not (root / "modules.json").is_file() or _is_adapter(root):
        raise UnsupportedCheckpointError(
            f"{located.name}: adapters for each role are merged where they lie in folders of a sentence-transformers "
            "directory (modules.json) with the weights that they are for; export one adapter after the other, or save "
            "the base with sentence-transformers and copy their folders into it"
        )
    source = _transformer(root)
    for folder in folders.values():
        read_lora(folder)
        weights_of(folder)
    with _place(root) as (place, _):
        for role, here in _with_router(root, source, place).items():
            say(f"merging the adapter {names[role]} into {located.name} for {role} texts")
            _set_apart(folders[role], here, Base(name=located.name, revision=located.revision, adapter=names[role]))
        yield replace(located, path=place)


@contextmanager
def _of_jina(located: Located, own: jina.Own, names: Chosen, say: Callable[[str], None]) -> Iterator[Located]:
    """A checkpoint of Jina's own code as sentence-transformers and transformers have it, with the adapters to merge."""
    root = located.path
    if not names and own.default is not None:
        names = {"": own.default}
    refuse_unknown(names, own.tasks, located.name)
    if "" not in names and names and not (root / "modules.json").is_file():
        raise UnsupportedCheckpointError(
            f"{located.name} has no modules.json, which adapters for each role need; name one adapter, or copy it from "
            "the checkpoint on the hub"
        )
    with _place(root) as (place, _):
        if names and "" not in names:
            places = _with_router(root, own.folder, place)
        else:
            _link_all(root, place)
            places = {"": place / own.folder.relative_to(root)}
        for role, here in places.items():
            task = names.get(role)
            jina.write(own, here, jina.translation(own, located.name, located.revision, task))
            if task is not None:
                say(f"merging the adapter {task} into {located.name}" + (f" for {role} texts" if role else ""))
        if own.tasks and not names:
            say(
                f"note: {located.name} holds the adapters {', '.join(own.tasks)}; none is merged, as in its own code "
                "for texts without a task; --adapter names one, or one for each role: --adapter "
                "query=NAME,document=NAME"
            )
        _translate_chain(own, place, names)
        yield replace(located, path=place)


@contextmanager
def _of_jina_v5(
    located: Located, names: Chosen, base: str | None, find: Find, say: Callable[[str], None]
) -> Iterator[Located]:
    """A checkpoint of jina-embeddings-v5 as libraries have it, with the adapters to merge."""
    with _place(located.path) as (place, _):
        _link_all(located.path, place)
        jina_v5.write(located.path, place)
        asked = names.get("") or ",".join(f"{role}={name}" for role, name in names.items())
        with whole(replace(located, path=place), base, find, say, asked) as merged:
            yield merged


def _translate_chain(own: jina.Own, place: Path, names: Chosen) -> None:
    """modules.json without the code's own class, and the prompts of the chosen adapters."""
    file, beside = place / "modules.json", place / "config_sentence_transformers.json"
    if not file.is_file():
        return
    modules = json.loads(file.read_text(encoding="utf-8"))
    for module in modules:
        if jina.is_module(str(module.get("type"))):
            module["type"] = "sentence_transformers.models.Transformer"
            module.pop("kwargs", None)
    said = read_json(beside) if beside.is_file() else {}
    for changed, body in ((file, modules), (beside, jina.translated_prompts(own, said, names))):
        changed.unlink(missing_ok=True)  # a link
        changed.write_text(json.dumps(body), encoding="utf-8")


def _with_router(root: Path, source: Path, place: Path) -> dict[str, Path]:
    """Links to a checkpoint's files with a Router where its transformer in `source` is: folders of both roles' own."""
    _link_all(root, place)
    here = place / source.relative_to(root)
    write_router(place)
    folders = {role: place / ROUTER / folder_of(role) for role in ROLES}
    for file in source.iterdir():
        if file.is_file() and file.name not in _OF_CHECKPOINT:
            for folder in folders.values():
                _link(file, folder / file.name)
            (here / file.name).unlink(missing_ok=True)
    return folders


def _is_adapter(root: Path) -> bool:
    return bool(_with_adapters(root))


@contextmanager
def _beside_bases(
    located: Located,
    folders: list[Path],
    adapter: str | None,
    base: str | None,
    find: Find,
    say: Callable[[str], None],
) -> Iterator[Located]:
    """A checkpoint whose transformers in these folders are adapters, each with its base.

    `adapter`: the folder of the checkpoint that this one is from, where it was one of several.
    """
    root = located.path
    for folder in folders:
        read_lora(folder)  # before a base is fetched
        weights_of(folder)
    with _place(root) as (place, there):
        chained = (root / "modules.json").is_file()
        if chained:
            _link_all(root, place)
        for folder in folders:
            here = place / folder.relative_to(root)
            if _is_model(folder):
                _link_all(folder, here)
                found = Base(name=located.name, revision=located.revision, adapter=adapter)
            else:
                other = _find_base(folder, base, find)
                found = Base(name=other.name, revision=other.revision, adapter=adapter)
                source = _transformer(other.path)
                there += [other.path, source]
                if chained:
                    _link_model(source, here)
                else:
                    _link(folder / "README.md", place / "README.md")  # the adapter's own card
                    _link_all(other.path, place)
                    here = place / source.relative_to(other.path)
            say(f"merging the adapter into {found.name}")
            _set_apart(folder, here, found)
        yield replace(located, path=place)


def placed(root: Path) -> list[Path]:
    """Folders of the adapters that `whole` has put into a checkpoint, which reading it has to merge."""
    return sorted(root.rglob(FOLDER))


def base_of(folder: Path) -> Base:
    """What was the base of the adapter in `folder` / FOLDER."""
    return Base(**read_json(folder / FOLDER / _BASE_FILE))


def _with_adapters(root: Path) -> list[Path]:
    """Folders of transformers with an adapter: the root, or modules' own."""
    if (root / ADAPTER).is_file():
        return [root]
    if (root / "modules.json").is_file():
        modules = [inside(root, folder) for _, folder in module_entries(root, own=("",)) if folder]
        return sorted(file.parent for module in modules for file in module.rglob(ADAPTER))
    if (named := _named(root)) and not (root / _CONFIG).is_file():
        raise UnsupportedCheckpointError(
            f"{root} holds the adapters {', '.join(named)}, one in each folder, and one is merged; name it with "
            "--adapter"
        )
    return []


def _named(root: Path) -> list[str]:
    """Folders of a checkpoint with an adapter each, also in ADAPTERS, of which its modules name none."""
    return sorted(file.parent.name for front in ("", f"{ADAPTERS}/") for file in root.glob(f"{front}*/{ADAPTER}"))


def _has_model(root: Path) -> bool:
    return (root / _CONFIG).is_file() or (root / "modules.json").is_file()


def _chosen(root: Path, adapter: str, name: str) -> Path:
    """Folder of the adapter that was asked for."""
    places = [inside(root, name) for name in (adapter, f"{ADAPTERS}/{adapter}")]
    folder = next((place for place in places if (place / ADAPTER).is_file()), None)
    if folder is None:
        named = _named(root)
        there = f"there are {', '.join(named)}" if named else "it holds none in folders"
        raise InvalidInputError(f"{name} has no adapter in {adapter!r} ({ADAPTER}); {there}")
    return folder


def _is_model(folder: Path) -> bool:
    """Whether a whole model lies beside the adapter, to which transformers applies it."""
    return (folder / _CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHT_FILES)


def _find_base(folder: Path, wanted: str | None, find: Find) -> Located:
    said = read_json(folder / ADAPTER)
    name = wanted or said.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(f"{folder / ADAPTER} names no base model; name it with --base")
    try:
        revision = None if wanted is not None or Path(name).is_dir() else said.get("revision")
        found = find(name, revision)
    except ModelNotFoundError as error:
        origin = "--base" if wanted else "the base that the adapter names"
        raise ModelNotFoundError(f"{origin}, {name!r}, cannot be had: {error}; name it with --base") from error
    if (found.path / ADAPTER).is_file():
        raise UnsupportedCheckpointError(f"the base {name!r} is an adapter itself; merge that one first")
    return found


def _transformer(root: Path) -> Path:
    """Folder of a base's transformer: modules.json counts before a config.json that stands beside it."""
    if (root / "modules.json").is_file():
        kind, folder = module_entries(root, own=("",))[0]
        if kind in ("Transformer", "MLMTransformer") and (inside(root, folder) / _CONFIG).is_file():
            return inside(root, folder)
    if (root / _CONFIG).is_file():
        return root
    raise CheckpointError(f"the base {root} has no {_CONFIG}; is it a transformers checkpoint?")


def _link_all(source: Path, place: Path) -> None:
    for directory, names, files in os.walk(source):
        names[:] = [name for name in names if not name.startswith(".")]
        for name in files:
            file = Path(directory) / name
            _link(file, place / file.relative_to(source))


def _link_model(source: Path, place: Path) -> None:
    """config.json and weights of a base's transformer; its tokenizer where there is none yet."""
    files = [source / _CONFIG, *weight_files(source, with_index=True)]
    if not any((place / name).is_file() for name in _TOKENIZER_FILES):
        beside = [*source.glob("*"), *source.glob(f"{CHAT_TEMPLATES}/*")]
        texts = [file for file in beside if is_text(file.relative_to(source).as_posix(), "")]
        named = [file for file in texts if file.name not in _NOT_OF_TOKENIZER]
        files += [file for file in named if not file.name.startswith("sentence_")]  # settings of the base's modules
    files += source.glob("*.py")  # code of the base's own, which --trust-remote-code runs
    for file in files:
        _link(file, place / file.relative_to(source))


def _set_apart(folder: Path, place: Path, base: Base) -> None:
    """The adapter in a folder of its own, and nothing of it beside the base's weights."""
    for name in (ADAPTER, *ADAPTER_WEIGHTS):
        if (folder / name).is_file():
            _link(folder / name, place / FOLDER / name)
        (place / name).unlink(missing_ok=True)
    (place / FOLDER / _BASE_FILE).write_text(json.dumps(asdict(base)), encoding="utf-8")


@contextmanager
def _place(*roots: Path) -> Iterator[tuple[Path, list[Path]]]:
    """A directory that goes again, and the directories that its files are from, of which more may be added.

    What is wrong with a file in it is said of the file that it is a link to.
    """
    there = list(roots)
    with tempfile.TemporaryDirectory(prefix="fastembed-rt-adapter-") as made:

        def real(found: re.Match[str]) -> str:
            inner = found["inner"].replace(f"{os.sep}{FOLDER}", "").lstrip(os.sep)
            return str(next((root for root in there if (root / inner).exists()), there[0]) / inner)

        try:
            yield Path(made), there
        except FastembedRtError as error:
            pattern = re.compile(re.escape(made) + r"(?P<inner>[^\s:,;()'\"]*)")
            error.args = tuple(pattern.sub(real, part) if isinstance(part, str) else part for part in error.args)
            raise


def _link(file: Path, name: Path) -> None:
    """Another name of a file, the first that comes; a copy where the file system has no links."""
    if name.exists() or not file.exists():
        return
    name.parent.mkdir(parents=True, exist_ok=True)
    real = file.resolve()
    for way in (os.symlink, os.link):
        try:
            way(real, name)
        except OSError:
            continue
        return
    shutil.copyfile(real, name)
