"""What is refused before anything is loaded: names that hide a model, ports that are none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from asgi_client import Client

from fastembed_rt import EmbeddingModel
from fastembed_rt.cli import main
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.server.app import App
from fastembed_rt.server.listening import Listening
from fastembed_rt.server.loading import load
from fastembed_rt.server.naming import entries


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    """Directories of one name; nothing is in them that loads."""
    made = [tmp_path / "aa" / "m", tmp_path / "bb" / "m"]
    for path in made:
        path.mkdir(parents=True)
    return [*map(str, made)]


def test_two_models_of_one_name_are_refused_with_what_to_write(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([*two], [*two, "--workers", "2"], [f"x={two[0]}", f"x={two[1]}"]):
        assert main(["serve", *words]) == 2
        said = capsys.readouterr().err
        assert "would both answer to the name" in said, said
        assert "NAME=MODEL" in said
    assert main(["serve", two[0], two[0]]) == 2
    assert "given twice" in capsys.readouterr().err
    with pytest.raises(InvalidInputError, match="would both answer"):
        load(two)


def test_names_apart_are_taken_and_an_alias_may_hide_no_model(
    two: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert entries([two[0], f"n={two[1]}", "org/m"]) == [("m", two[0]), ("n", two[1]), ("org/m", "org/m")]
    assert entries([f"a={two[0]}", f"b={two[0]}"], ["*", "a"]) == [("a", two[0]), ("b", two[0])]
    assert main(["serve", two[0], f"n={two[1]}", "--alias", "n"]) == 2
    assert "the alias 'n' of m is the name of another model" in capsys.readouterr().err
    for entry in ("=" + two[0], "n=", ""):
        with pytest.raises(InvalidInputError, match="NAME=MODEL"):
            entries([entry])


def test_a_link_is_served_under_its_own_name_which_stays_when_it_moves_on(
    two: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "current"
    for directory in two:
        link.unlink(missing_ok=True)
        link.symlink_to(directory)
        assert entries([str(link)]) == [("current", str(link))]
    monkeypatch.chdir(two[0])
    assert entries(["."]) == [("m", ".")]
    assert entries(["../m/"]) == [("m", "../m/")]


def test_exports_of_one_checkpoint_share_its_name_and_keep_their_own(directories: Any, tmp_path: Path) -> None:
    other = shutil.copytree(directories.models["encoder"], tmp_path / "second")
    found = load([str(directories.models["encoder"]), str(other)], threads=1)
    checkpoint = found.all[0].model.manifest.source.checkpoint
    assert found.find("second") is found.all[1]
    assert found.find("encoder") is found.find(checkpoint) is found.all[0]
    for served in found.all:
        served.model.close()


def test_an_application_of_models_from_directories_of_one_name(directories: Any, tmp_path: Path) -> None:
    other = shutil.copytree(directories.models["encoder"], tmp_path / "encoder")
    with (
        EmbeddingModel(directories.models["encoder"], threads=1) as first,
        EmbeddingModel(other, threads=1) as second,
    ):
        with pytest.raises(InvalidInputError, match=r"'encoder'.*pass a dict"):
            App([first, second])
        with App({"first": first, "second": second}) as app:
            answer = Client(app).get("/v1/models").json
            assert [entry["id"] for entry in answer["data"]] == ["first", "second"]


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "x"])
def test_a_port_that_is_none(port: str, two: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["serve", two[0]], ["mcp", two[0]]):
        assert main([*words, "--port", port]) == 2
        assert f"{port!r} is not a port, a number from 0 to 65535" in capsys.readouterr().err
    if port != "x":
        with pytest.raises(InvalidInputError, match=f"port {port} is not possible; expected 0 to 65535"):
            Listening(port=int(port))


def test_any_free_port_is_the_same_on_all_addresses_and_is_said() -> None:
    sockets, listening = Listening(host="localhost", port=0).open()
    try:
        assert {found.getsockname()[1] for found in sockets} == {listening.port}
        assert listening.address == f"http://localhost:{listening.port}"
        assert listening.port > 0
    finally:
        for found in sockets:
            found.close()


def test_files_that_cannot_be_used_are_named_before_a_model_is_loaded(
    two: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing in these directories loads: an error about the model would be the wrong one."""
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no certificate\n")
    for options, said in (
        (["--api-key-file", "no-keys"], "the file of keys no-keys cannot be read: No such file or directory"),
        (["--api-key-file", str(tmp_path / "empty")], f"the file of keys {tmp_path / 'empty'} holds none"),
        (["--ssl-certfile", "no.pem"], "--ssl-certfile no.pem cannot be read: No such file or directory"),
        (["--ssl-keyfile", "no.pem"], "--ssl-keyfile is the key of a certificate; give --ssl-certfile too"),
        (["--ssl-certfile", str(tmp_path / "text")], f"{tmp_path / 'text'}: no certificate in PEM"),
        (["--uds", "nowhere/here"], "cannot listen on the Unix socket nowhere/here: No such file or directory"),
        (["--uds", str(tmp_path / "text")], f"--uds {tmp_path / 'text'} is a file that is no socket"),
        (["--uds", str(tmp_path / ("a" * 200))], "AF_UNIX path too long"),
    ):
        for workers in ("1", "2"):
            assert main(["serve", two[0], *options, "--workers", workers]) == 2, options
            assert said in capsys.readouterr().err
