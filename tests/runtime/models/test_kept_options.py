"""Options with a hub token: it stays in the process, whatever is made of them."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import pprint
from typing import Any

import pytest
import yaml

from fastembed_rt.cache.wanted import Hub
from fastembed_rt.hub.client import Repository
from fastembed_rt.models.kept_options import KeptOptions, ModelOptions
from fastembed_rt.models.opening import Source

TOKEN = "a-secret"
OPTIONS = {"threads": 1, "prompts": {"query": "q"}, "token": TOKEN}


class Keeping:
    options = KeptOptions()

    def __init__(self, options: Any) -> None:
        self.options = options


def test_they_are_shown_and_pickled_without_the_token() -> None:
    options = ModelOptions(OPTIONS)
    assert options == OPTIONS
    for shown in (repr(options), str([options]), f"{options}", pprint.pformat({"options": options})):
        assert TOKEN not in shown
        assert "threads" in shown
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        packed = pickle.dumps({"options": options}, protocol)
        assert TOKEN.encode() not in packed
        again = pickle.loads(packed)["options"]
        assert type(again) is ModelOptions
        assert again == {"threads": 1, "prompts": {"query": "q"}}


@dataclasses.dataclass
class Record:
    options: Any


def test_what_writes_their_items_leaves_the_token_out() -> None:
    made, record = Keeping(OPTIONS), Record(ModelOptions(OPTIONS))
    for written in (
        json.dumps(made.options),
        json.dumps(made.options, indent=1, sort_keys=True),
        "".join(json.JSONEncoder().iterencode(made.options)),
        json.dumps(vars(made)),
        json.dumps(dataclasses.asdict(record)),
        json.dumps({name: value for name, value in made.options.items()}),  # noqa: C416
        str([*made.options.values()]),
        yaml.safe_dump(dict(made.options.items())),
    ):
        assert TOKEN not in written
        assert "query" in written
    assert made.options["token"] == made.options.get("token") == TOKEN
    assert {**made.options} == dict(made.options) == OPTIONS


def test_a_field_of_pydantics_has_the_token_and_writes_it_nowhere() -> None:
    pydantic = pytest.importorskip("pydantic")
    kind = pydantic.create_model("Kind", options=(ModelOptions, ...))
    for given in (OPTIONS, ModelOptions(OPTIONS)):
        made = kind(options=given)
        for each in (made, made.model_copy(), made.model_copy(deep=True), kind(options=made.options)):
            assert type(each.options) is ModelOptions
            assert each.options is not given
            assert {**each.options} == OPTIONS
            written = (repr(each), each.model_dump_json(), json.dumps(each.model_dump()), json.dumps(each.options))
            assert not [text for text in written if TOKEN in text]
    with pytest.raises(pydantic.ValidationError, match="dictionary"):
        kind(options=3)


def test_copies_in_the_process_have_it_and_hide_it_too() -> None:
    options = ModelOptions(OPTIONS)
    for again in (copy.copy(options), copy.deepcopy(options), options.copy(), options | {}, {} | options):
        assert again == OPTIONS
        assert again is not options
        assert TOKEN not in repr(again)
    assert copy.deepcopy(options)["prompts"] is not options["prompts"]


def test_an_attribute_keeps_what_is_assigned_to_it() -> None:
    made = Keeping(OPTIONS)
    assert made.options == OPTIONS
    assert TOKEN not in f"{vars(made)}"
    kept = made.options
    made.options = kept
    assert made.options is kept  # as scikit-learn's clone asks
    made.options = {"token": TOKEN}
    assert TOKEN.encode() not in pickle.dumps(vars(made))
    made.options = None
    assert made.options is None
    with pytest.raises(AttributeError, match="options"):
        Keeping.__new__(Keeping).options  # noqa: B018


def test_records_with_a_token_do_not_show_it() -> None:
    records: list[Any] = [
        Source(path_or_name="a/b", token=TOKEN),
        Hub(token=TOKEN),
        Repository(name="a/b", revision=None, token=TOKEN, cache_dir=None, local_files_only=False),
    ]
    for record in records:
        assert record.token == TOKEN
        assert TOKEN not in repr(record)
