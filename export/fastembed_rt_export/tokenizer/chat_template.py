"""Chat templates in parts: the text that a template puts around a query, a document and a prompt, found by rendering.

A template is a program in Jinja, as transformers renders it. The runtime has none: it gets the parts, once they were
seen to give what the template gives, for texts that templates are known to treat in ways of their own and for all words
that stand in this one. A template that does more with a text than to put it somewhere is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from fastembed_rt.errors import FastembedRtError
from fastembed_rt.manifest import SLOTS, ChatTemplate, TemplatePart
from fastembed_rt.text.chat import Chat

from ..checkpoint.record import Checkpoint
from ..errors import CheckpointError, MissingDependencyError, UnsupportedCheckpointError, first_line, theirs
from ..files import read_json
from . import set_as_said

SETTINGS, FILE, FOLDER = "tokenizer_config.json", "chat_template.jinja", "additional_chat_templates"
# What sentence-transformers looks for in a template to tell that a message's content is a list of parts.
STRUCTURED = ("content[0]", ".type", "'type'", '"type"', "item.type", "message.content[")
MARKS = dict(zip(SLOTS, "\ue0f0\ue0f1\ue0f2", strict=True))  # of Unicode's private use, which no text needs
ADVICE = (
    "a template for a reranker writes the contents of the roles 'query' and 'document', and that of 'system' where it "
    f"takes an instruction; put one beside the weights as {FILE} (the documentation, Other heads, has those of "
    "Qwen3-Reranker, mxbai-rerank-v2 and bge-reranker-v2-gemma)"
)
# Texts that a template might not put in their place as they are.
PROBES = (
    *("", " ", "a", "two  words", "  spaced  ", "\n\nlines\n\n", "\ttab\t", "\u00a0wide\u3000", "a\r\nb", "0", "None"),
    *("STRASSE straße İ ﬁ", "e\u0301 日本 🙂", "<b>&amp; \"quoted\" 'so'</b>", "{{ 7 * 7 }}{% raw %}"),
    *("back\\slash \\n", "[1, 2]", "https://example.com/a.png", "a. b, c! d? " * 3000),
)
Render = Callable[[Mapping[str, str]], str]  # of what stands in each slot; without a prompt there is no system message


def read(checkpoint: Checkpoint) -> ChatTemplate:
    """The template that the checkpoint's pairs go through.

    Raises:
        CheckpointError: there is none, or one that cannot be rendered.
        UnsupportedCheckpointError: one that has no place for a query and a document, or does more with them.
        MissingDependencyError: jinja2 is not installed.
    """
    assert checkpoint.chat is not None
    source, where, several = _source(checkpoint)
    template, literals = _compiled(source, where)
    render = _renderer(checkpoint, template, where, structured=_is_structured(checkpoint.chat.form, source, several))
    try:
        whole = render({"query": MARKS["query"], "document": MARKS["document"]})
    except CheckpointError as error:
        raise UnsupportedCheckpointError(
            f"{where} gives no text of a query and a document ({error}); {ADVICE}"
        ) from error
    absent = [slot for slot in ("query", "document") if MARKS[slot] not in whole]
    if absent:
        classifies = str((checkpoint.config.get("architectures") or [""])[0]).endswith("ForSequenceClassification")
        plain = classifies and not (checkpoint.root / "modules.json").is_file()
        raise UnsupportedCheckpointError(
            f"{where} writes no {' and no '.join(absent)}, so that scores would not depend on it; {ADVICE}"
            + (", or remove the template if texts are meant as they are" if plain else "")
        )
    parts = _parts(render, whole, literals, where, prompted=False)
    try:
        whole = render(MARKS)
    except CheckpointError:
        return ChatTemplate(plain=parts, restore_end=checkpoint.chat.restore_end)
    prompted = _parts(render, whole, literals, where, prompted=True)
    return ChatTemplate(plain=parts, prompted=prompted, restore_end=checkpoint.chat.restore_end)


def source_of(checkpoint: Checkpoint) -> str:
    """The template's text.

    Raises:
        CheckpointError: there is none.
    """
    return _source(checkpoint)[0]


def _source(checkpoint: Checkpoint) -> tuple[str, str, bool]:
    """The template, what messages call its place, and whether it has a name among others: as transformers looks."""
    path = checkpoint.path
    said = read_json(path / SETTINGS) if (path / SETTINGS).is_file() else {}
    files = {"default": path / FILE} if (path / FILE).is_file() else {}
    files |= {file.stem: file for file in sorted((path / FOLDER).glob("*.jinja"))}
    found: Any = {name: _text(file) for name, file in files.items()} or said.get("chat_template")
    found = found["default"] if [*files] == ["default"] else found
    where = str(path / (FILE if files else SETTINGS))
    if "chat_template" in checkpoint.tokenizer_settings:
        found, where = checkpoint.tokenizer_settings["chat_template"], "processor_kwargs' chat_template"
    several = isinstance(found, (list, dict))
    if isinstance(found, list):
        found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
    if isinstance(found, dict):
        if "default" not in found:
            raise CheckpointError(f"{where}: of the chat templates {sorted(map(str, found))} none is called 'default'")
        found = found["default"]
    if not isinstance(found, str) or not found:
        raise CheckpointError(f"{path} has no chat template, which its modality_config asks for; {ADVICE}")
    return found, where, several


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not a text file ({error}); download it again") from error


def _is_structured(form: str, source: str, several: bool) -> bool:
    """Whether a message's content is a list of parts; as sentence-transformers guesses it where nothing is said.

    Of templates by name, be it one, it guesses nothing.
    """
    if form != "auto":
        return form == "structured"
    return several or any(pattern in source for pattern in STRUCTURED)


def _renderer(checkpoint: Checkpoint, template: Any, where: str, *, structured: bool) -> Render:
    assert checkpoint.chat is not None
    variables = {"add_generation_prompt": False, **_special_tokens(checkpoint), **checkpoint.chat.variables}

    def message(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}] if structured else text}

    def render(given: Mapping[str, str]) -> str:
        messages = [message("system", given["prompt"])] if "prompt" in given else []
        messages += [message(role, given[role]) for role in ("query", "document")]
        try:
            rendered: str = template.render(messages=messages, tools=None, documents=None, **variables)
        except Exception as error:
            if isinstance(error, FastembedRtError) or not theirs(error):
                raise
            raise CheckpointError(f"{where} cannot be rendered: {first_line(error)}") from error
        return rendered

    return render


def _environment(where: str) -> Any:
    """Jinja as transformers sets it up for chat templates: a sandbox."""
    try:
        from jinja2 import TemplateError
        from jinja2.ext import Extension, loopcontrols
        from jinja2.nodes import CallBlock
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError as error:
        raise MissingDependencyError(
            f"{where} is a chat template, which needs jinja2; pip install 'fastembed-rt[export]'"
        ) from error

    class Generation(Extension):
        """{% generation %}: marks what a model has said, and writes what it is around."""

        tags = {"generation"}  # noqa: RUF012 - as Jinja declares it

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_as_it_is"), [], [], body).set_lineno(line)

        def _as_it_is(self, caller: Callable[[], str]) -> str:
            return caller()

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def today(form: str) -> None:
        raise UnsupportedCheckpointError(
            f"{where} writes today's date, and scores would change from day to day; write the date that the model was "
            "trained with"
        )

    def to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **options)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = refuse
    made.globals["strftime_now"] = today
    return made


def _compiled(source: str, where: str) -> tuple[Any, tuple[str, ...]]:
    """The template, and all words that it might compare a text with, look for in it, or split it at."""
    environment = _environment(where)
    from jinja2 import nodes

    try:
        constants = environment.parse(source).find_all(nodes.Const)
        words = [node.value for node in constants if isinstance(node.value, str) and node.value]
        return environment.from_string(source), tuple(dict.fromkeys(words))
    except Exception as error:
        if not theirs(error):
            raise
        raise CheckpointError(f"{where} is not a template that Jinja reads ({first_line(error)})") from error


def _special_tokens(checkpoint: Checkpoint) -> dict[str, str]:
    file, said = checkpoint.path / "tokenizer.json", checkpoint.path / SETTINGS
    return set_as_said.named(
        file.read_text(encoding="utf-8") if file.is_file() else "{}",
        read_json(said) if said.is_file() else {},
        checkpoint.tokenizer_settings,
        checkpoint.config,
        checkpoint.path,
    )


def _parts(
    render: Render, whole: str, literals: tuple[str, ...], where: str, *, prompted: bool
) -> tuple[TemplatePart, ...]:
    """The parts of a text that was rendered of MARKS, with or without white space around what stands in the slots."""
    slots = [slot for slot in SLOTS if slot != "prompt" or prompted]
    by_mark = {mark: slot for slot, mark in MARKS.items()}
    pieces = re.split(f"([{''.join(by_mark)}])", whole)
    wrong: tuple[Mapping[str, str], str] | None = None
    for strips in sorted(product((False, True), repeat=len(slots)), key=sum):
        strip = dict(zip(slots, strips, strict=True))
        parts = tuple(
            TemplatePart(slot=by_mark[piece], strip=strip[by_mark[piece]])
            if piece in by_mark
            else TemplatePart(text=piece)
            for piece in pieces
            if piece
        )
        found = next(_differing(render, Chat(ChatTemplate(plain=parts, prompted=parts)), slots, literals), None)
        if found is None:
            return parts
        wrong = wrong or found
    assert wrong is not None
    given, rendered = wrong
    shown = {slot: text if len(text) < 40 else f"{text[:40]}..." for slot, text in given.items()}
    raise UnsupportedCheckpointError(
        f"{where} does more with a text than to put it in a place, which is not built: of {shown} it makes "
        f"{rendered[:200]!r}; write the texts as they are, or without the white space around them (trim)"
    )


def _differing(
    render: Render, chat: Chat, slots: list[str], literals: tuple[str, ...]
) -> Iterator[tuple[Mapping[str, str], str]]:
    """What is rendered otherwise than by the parts."""
    probes = [*PROBES, *(text for word in literals for text in (word, f"{word}a", f"a{word}", f"a{word}b"))]
    for text in probes:
        for chosen in (*((slot,) for slot in slots), tuple(slots)):
            given = {slot: text if slot in chosen else "x" for slot in slots}
            if "prompt" in slots and not given["prompt"]:
                continue  # an empty prompt is none
            try:
                rendered = render(given)
            except CheckpointError as error:
                yield given, str(error)
                continue
            if rendered != chat.render((given["query"], given["document"]), given.get("prompt", "")):
                yield given, rendered
