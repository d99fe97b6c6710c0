"""The manifest: what is written comes back, anything else is refused by name, and altered files are noticed."""

from __future__ import annotations

import copy
import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastembed_rt import EmbeddingModel, files, manifest
from fastembed_rt.errors import IntegrityError, InvalidInputError, ModelFormatError, ModelNotFoundError
from fastembed_rt.manifest import FileRecord, Manifest

ESCAPES = [
    "../x", "a/../../b", "..", "/etc/passwd", "//host/share", "C:\\x", "C:x", "\\x", "\\\\host\\share\\x",
    "a\\..\\..\\b", "..\\x", "", "a\0b", "\ud800",
]  # fmt: skip
NAMES = ["model.onnx", "onnx/model.onnx", "model.cpu.int8.onnx", "..model.onnx", "a..b", "モデル.onnx"]


@pytest.fixture(scope="module")
def body(model_dir: Path) -> dict[str, Any]:
    """The manifest of the model directory as JSON; tests take copies."""
    value: dict[str, Any] = json.loads((model_dir / "manifest.json").read_text(encoding="utf-8"))
    return value


@pytest.fixture
def directory(model_dir: Path, tmp_path: Path) -> Path:
    """A model directory that the test may alter."""
    return Path(shutil.copytree(model_dir, tmp_path / "model"))


def parse(body: object) -> Manifest:
    return manifest.parse(json.dumps(body))


def changed(body: dict[str, Any], *path: str | int, to: object) -> dict[str, Any]:
    """The body with one value replaced."""
    result = copy.deepcopy(body)
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return result


def test_a_manifest_comes_back_as_it_was_written(body: dict[str, Any], tmp_path: Path) -> None:
    full = dataclasses.replace(
        parse(body),
        prompts={"query": "質問: ", "plain": ""},
        default_prompt_name="plain",
        notes=("a", "b"),
        overrides={"pooling": ["cls"]},
        parity={"worst": 1e-7},
    )
    full.write(tmp_path)
    assert manifest.read(tmp_path) == full


def test_the_files_of_a_manifest_are_listed_once(body: dict[str, Any]) -> None:
    first = body["variants"][0]
    shared = {"file": "weights.bin", "size": 1, "sha256": "0" * 64}
    variants = [
        {**first, "graph": {**first["graph"], "file": file}, "weights": [shared]}
        for file in ("model.onnx", "model.cuda.fp16.onnx")
    ]
    changed = {**body, "variants": variants, "default_variant": "model.onnx", "tool_files": [shared]}
    names = [record.file for record in parse(changed).files]
    assert sorted(names) == ["model.cuda.fp16.onnx", "model.onnx", "tokenizer.json", "weights.bin"]


def test_directories_from_before_there_were_files_for_other_tools_load(body: dict[str, Any]) -> None:
    del body["tool_files"]
    assert parse(body).tool_files == ()


def test_what_was_refused_comes_back_and_need_not_be_there(body: dict[str, Any]) -> None:
    refused = manifest.Refused(precision="int8", target="cpu", why="cosine min 0.94")
    with_it = dataclasses.replace(parse(body), refused=(refused,))
    assert manifest.parse(with_it.to_json()) == with_it
    assert str(refused) == "int8 for target cpu: cosine min 0.94"
    assert parse({key: value for key, value in body.items() if key != "refused"}).refused == ()
    with pytest.raises(ModelFormatError, match=r"refused\[0\] lacks the field 'why'"):
        parse({**body, "refused": [{"precision": "int8", "target": "cpu"}]})


def test_a_name_with_a_line_feed_is_told_in_one_line(body: dict[str, Any]) -> None:
    with pytest.raises(ModelFormatError) as caught:
        parse({**body, "routes": {"a\nb": None}})
    assert r"routes.'a\nb' is NoneType" in str(caught.value)


def test_unknown_facts_of_a_later_writer_are_passed_over(body: dict[str, Any]) -> None:
    assert parse({**body, "a_new_fact": [1, 2]}) == parse(body)


@pytest.mark.parametrize("name", ESCAPES, ids=ascii)
def test_a_file_name_that_leaves_the_directory_is_refused(body: dict[str, Any], name: str) -> None:
    for path in (("tokenizer", "file"), ("variants", 0, "graph", "file")):
        with pytest.raises(ModelFormatError, match="leaves the model directory"):
            parse(changed(body, *path, to=name))
    with pytest.raises(ModelFormatError, match="leaves the model directory"):
        FileRecord(file=name, size=1, sha256="")


@pytest.mark.parametrize("name", NAMES)
def test_a_file_name_inside_the_directory_is_taken(name: str) -> None:
    assert FileRecord(file=name, size=1, sha256="").file == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("{'a': 1}", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("1" * 10_000, "is not JSON"),
        ("null", "is not a fastembed-rt manifest"),
        ("[]", "is not a fastembed-rt manifest"),
        ('{"format": "other"}', "is not a fastembed-rt manifest"),
        ('{"format": "fastembed-rt"}', "has format version None"),
        ('{"format": "fastembed-rt", "format_version": 1}', "lacks the field"),
    ],
    ids=lambda value: value[:24],
)
def test_what_is_no_manifest_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(ModelFormatError, match=message):
        manifest.parse(text)


@pytest.mark.parametrize("version", [0, 2, 99, "1", None, True, 1.5, [1]])
def test_another_format_version_is_refused_by_number(body: dict[str, Any], version: object) -> None:
    with pytest.raises(ModelFormatError, match="this fastembed-rt reads 1") as caught:
        parse({**body, "format_version": version})
    assert repr(version) in str(caught.value)


@pytest.mark.parametrize("name", ["source", "dim", "pooling", "max_length", "tokenizer", "variants", "default_variant"])
def test_a_missing_field_is_named(body: dict[str, Any], name: str) -> None:
    with pytest.raises(ModelFormatError, match=name):
        parse({key: value for key, value in body.items() if key != name})


@pytest.mark.parametrize(
    "path", [("source", "model_type"), ("tokenizer", "sha256"), ("variants", 0, "inputs")], ids=str
)
def test_a_missing_field_of_a_record_is_named(body: dict[str, Any], path: tuple[str | int, ...]) -> None:
    result = copy.deepcopy(body)
    place: Any = result
    for step in path[:-1]:
        place = place[step]
    del place[path[-1]]
    with pytest.raises(ModelFormatError, match=str(path[-1])):
        parse(result)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("dim",), "24"), (("dim",), 24.5), (("dim",), None), (("dim",), True), (("dim",), [24]),
        (("max_length",), "16"), (("max_length",), 16.5), (("max_positions",), None),
        (("pad_token_id",), "0"), (("pad_token_id",), None),
        (("normalize",), "yes"), (("normalize",), 1), (("normalize",), None), (("include_prompt",), "false"),
        (("pooling",), "mean"), (("pooling",), [1]), (("pooling",), None), (("pooling",), {"mean": 1}),
        (("modules",), "Transformer"), (("modules",), None), (("notes",), [1]),
        (("prompts",), ["query"]), (("prompts",), None), (("prompts",), {"query": 5}), (("prompts",), {"query": None}),
        (("default_prompt_name",), 5), (("default_prompt_name",), ["query"]),
        (("similarity",), None), (("created_by",), 1), (("parity",), None), (("overrides",), []),
        (("source",), None), (("source",), "name"), (("source", "checkpoint"), None), (("source", "revision"), 5),
        (("tokenizer",), None), (("tokenizer",), "tokenizer.json"), (("tokenizer", "file"), 5),
        (("tokenizer", "file"), None), (("tokenizer", "size"), "3935"), (("tokenizer", "sha256"), None),
        (("variants",), None), (("variants",), {}), (("variants",), "x"), (("variants",), [None]),
        (("variants", 0, "graph"), "model.onnx"), (("variants", 0, "weights"), None),
        (("variants", 0, "opset"), "17"), (("variants", 0, "inputs"), "input_ids"), (("variants", 0, "inputs"), [1]),
        (("variants", 0, "target"), None), (("variants", 0, "precision"), 32), (("variants", 0, "notes"), []),
        (("default_variant",), None), (("default_variant",), ["model.onnx"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused(body: dict[str, Any], path: tuple[str | int, ...], value: object) -> None:
    with pytest.raises(ModelFormatError):
        parse(changed(body, *path, to=value))


@pytest.mark.parametrize(
    "changes",
    [
        {"dim": 0}, {"dim": -1}, {"max_length": 0}, {"max_length": 49}, {"max_positions": 15}, {"variants": []},
        {"default_variant": "other.onnx"}, {"default_prompt_name": "other"},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_contradict_each_other_are_refused(body: dict[str, Any], changes: dict[str, Any]) -> None:
    with pytest.raises(ModelFormatError):
        parse({**body, **changes})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(ESCAPES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of every value in a JSON body but the body itself."""
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for step, inner in steps for place in [(*path, step), *places(inner, (*path, step))]]


# Drawing from a manifest's places is slow only until the first examples are made.
@settings(suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_manifest_altered_anywhere_is_read_or_refused_and_never_crashes(
    body: dict[str, Any], data: st.DataObject
) -> None:
    path = data.draw(st.sampled_from(places(body)))
    if data.draw(st.booleans()):
        altered = changed(body, *path, to=data.draw(json_values))
    else:
        altered = copy.deepcopy(body)
        place: Any = altered
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]
    try:
        read = parse(altered)
    except ModelFormatError as error:
        assert "\n" not in str(error)
    else:
        assert manifest.parse(read.to_json()) == read


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_as_a_manifest_are_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    directory = tmp_path_factory.getbasetemp() / "any-bytes"
    directory.mkdir(exist_ok=True)
    (directory / "manifest.json").write_bytes(content)
    with pytest.raises(ModelFormatError):
        manifest.read(directory)


def test_a_directory_without_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="fastembed-rt export"):
        EmbeddingModel(tmp_path)
    with pytest.raises(ModelNotFoundError):
        manifest.read(tmp_path / "nowhere")


def test_a_directory_in_place_of_the_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(ModelFormatError):
        manifest.read(tmp_path)


def rewrite(directory: Path, **changes: Any) -> None:
    path = directory / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **changes}), encoding="utf-8")


def flip_last_byte(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
@pytest.mark.parametrize(
    ("alter", "message"),
    [
        (flip_last_byte, "has SHA-256 .*, the manifest says"),
        (cut_in_half, "bytes, the manifest says"),
        (lambda path: path.write_bytes(b""), "has 0 bytes, the manifest says"),
        (Path.unlink, "is missing"),
    ],
    ids=["flipped bit", "cut in half", "emptied", "gone"],
)
def test_an_altered_file_is_named(directory: Path, name: str, alter: Callable[[Path], object], message: str) -> None:
    alter(directory / name)
    with pytest.raises(IntegrityError, match=message) as caught:
        EmbeddingModel(directory)
    assert name in str(caught.value)


@pytest.mark.parametrize("name", ["model.onnx", "tokenizer.json"])
def test_a_directory_in_place_of_a_file_is_named(directory: Path, name: str) -> None:
    (directory / name).unlink()
    (directory / name).mkdir()
    # Of the very size that the manifest says, so that only the kind is wrong.
    record = FileRecord(file=name, size=(directory / name).stat().st_size, sha256="0" * 64)
    with pytest.raises(IntegrityError, match=name):
        files.check_file(directory, record)
    with pytest.raises(IntegrityError, match=name):
        EmbeddingModel(directory)


def test_a_tokenizer_that_still_works_is_noticed_when_altered(directory: Path) -> None:
    path = directory / "tokenizer.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(
        text.replace('"lowercase":true', '"lowercase":null').replace('"lowercase": true', '"lowercase": null')
    )
    assert path.read_text(encoding="utf-8") != text
    with pytest.raises(IntegrityError, match=r"tokenizer\.json has SHA-256"):
        EmbeddingModel(directory)


def test_unchecked_files_that_cannot_be_read_are_still_named(directory: Path) -> None:
    cut_in_half(directory / "model.onnx")
    with pytest.raises(ModelFormatError, match=r"cannot load .*model\.onnx"):
        EmbeddingModel(directory, target="portable", check_hashes=False)


def test_an_option_error_is_told_when_the_files_are_sound(directory: Path) -> None:
    with pytest.raises(InvalidInputError, match="truncation 'x'"):
        EmbeddingModel(directory, truncation="x")


def test_inputs_other_than_the_manifest_says_are_refused(directory: Path) -> None:
    body = json.loads((directory / "manifest.json").read_text(encoding="utf-8"))
    rewrite(directory, variants=[{**body["variants"][0], "inputs": ["input_ids"]}])
    with pytest.raises(ModelFormatError, match="the manifest says"):
        EmbeddingModel(directory)


def test_a_manifest_that_cannot_be_written_leaves_the_old_one_whole(
    body: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = parse(body)
    described.write(tmp_path)
    before = (tmp_path / manifest.MANIFEST_FILE).read_bytes()
    write = Path.write_text

    def full(path: Path, text: str, **options: Any) -> int:
        write(path, text[: len(text) // 2], **options)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left"):
        dataclasses.replace(described, notes=("other",)).write(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [manifest.MANIFEST_FILE]
    assert (tmp_path / manifest.MANIFEST_FILE).read_bytes() == before
