"""What is read of a config whose family has names of its own, and other people's errors turned into sentences."""

from __future__ import annotations

from typing import Any

import pytest
import transformers

from fastembed_rt_export.errors import UnsupportedCheckpointError, explained, first_line
from fastembed_rt_export.traced import torch_model

NO_LIMIT = "config.json names no limit of tokens; 2048 at most"


@pytest.mark.parametrize(
    ("model_type", "settings", "positions"),
    [
        ("xlm", {"emb_dim": 24, "n_heads": 3, "max_position_embeddings": 64}, 64),
        ("flaubert", {"emb_dim": 24, "n_heads": 3, "max_position_embeddings": 64}, 64),
        ("distilbert", {"dim": 24, "n_heads": 3, "max_position_embeddings": 64}, 64),
        ("gpt2", {"n_embd": 24, "n_head": 3, "n_positions": 64}, 64),
        ("ctrl", {"n_embd": 24, "n_positions": 64}, 64),
        ("mpt", {"d_model": 24, "max_seq_len": 64}, 64),
        ("bart", {"d_model": 24, "max_position_embeddings": 64}, 64),
        ("t5", {"d_model": 24, "n_positions": 64}, 64),
        ("xlnet", {"d_model": 24, "n_head": 3}, torch_model.UNNAMED),
        # Positions that begin behind the pad id have as many rows less.
        ("ibert", {"hidden_size": 24, "max_position_embeddings": 66, "pad_token_id": 1}, 64),
        ("xlm-roberta-xl", {"hidden_size": 24, "max_position_embeddings": 66, "pad_token_id": 1}, 64),
    ],
)
def test_width_and_limit_are_found_under_each_familys_names(
    model_type: str, settings: dict[str, Any], positions: int
) -> None:
    facts = torch_model.facts(transformers.AutoConfig.for_model(model_type, **settings))
    assert (facts.hidden_size, facts.positions) == (24, positions)
    assert facts.notes == ((NO_LIMIT,) if model_type == "xlnet" else ())


def test_settings_that_config_json_leaves_out_are_those_of_its_class() -> None:
    facts = torch_model.facts(transformers.AutoConfig.for_model("xlm"))
    assert (facts.hidden_size, facts.positions) == (2048, 512)


def test_big_bird_is_kept_to_the_lengths_where_its_attention_is_whole() -> None:
    sizes = {"hidden_size": 24, "max_position_embeddings": 4096, "block_size": 64, "num_random_blocks": 3}
    facts = torch_model.facts(transformers.AutoConfig.for_model("big_bird", attention_type="block_sparse", **sizes))
    assert facts.positions == 704
    assert facts.notes[0].startswith("attention is block-sparse from 705 tokens on")
    facts = torch_model.facts(transformers.AutoConfig.for_model("big_bird", attention_type="original_full", **sizes))
    assert (facts.positions, facts.notes) == (4096, ())


FACTORS = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}


@pytest.mark.parametrize(
    ("model_type", "settings", "positions"),
    [
        (
            "phi3",
            {
                "original_max_position_embeddings": 64,
                "rope_scaling": {"type": "su", "original_max_position_embeddings": 64, **FACTORS},
            },
            64,
        ),
        ("phi3", {"original_max_position_embeddings": 64, "rope_scaling": {"type": "longrope", **FACTORS}}, 64),
        (
            "llama",
            {
                "rope_scaling": {
                    "rope_type": "longrope",
                    "original_max_position_embeddings": 96,
                    "factor": 2.0,
                    **FACTORS,
                }
            },
            96,
        ),
        ("phi3", {}, 4096),
        ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, 4096),
    ],
)
def test_texts_are_kept_to_the_lengths_where_longrope_turns_as_for_short_ones(
    model_type: str, settings: dict[str, Any], positions: int
) -> None:
    sizes = {"hidden_size": 24, "num_attention_heads": 3, "num_key_value_heads": 3, "max_position_embeddings": 4096}
    facts = torch_model.facts(transformers.AutoConfig.for_model(model_type, pad_token_id=0, **sizes, **settings))
    assert facts.positions == positions
    said = f"rotary positions are others from {positions + 1} tokens on"
    assert [note.partition(",")[0] for note in facts.notes] == ([said] if positions < 4096 else [])


def test_a_config_without_a_width_is_refused_in_a_sentence() -> None:
    with pytest.raises(UnsupportedCheckpointError, match=r"model_type 'clip' has no hidden_size"):
        torch_model.facts(transformers.AutoConfig.for_model("clip"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (KeyError("dim"), "KeyError: 'dim'"),
        (RuntimeError(""), "RuntimeError"),
        (IndexError("\n\n  index out of range\nsecond line"), "IndexError: index out of range"),
        (AssertionError(), "AssertionError"),
        (NotImplementedError(" \n "), "NotImplementedError"),
    ],
)
def test_a_tracers_error_becomes_one_line_also_where_it_says_nothing(error: Exception, said: str) -> None:
    assert first_line(error) == said
    with pytest.raises(UnsupportedCheckpointError) as raised, explained("optimum cannot trace model_type 'xlm'"):
        raise error
    assert str(raised.value) == f"optimum cannot trace model_type 'xlm': {said}"
    assert raised.value.__cause__ is error


class LimitError(Exception):
    """What a user's signal handler raises."""


@pytest.mark.parametrize("error", [LimitError("limit"), TimeoutError("limit"), MemoryError(), KeyboardInterrupt()])
def test_what_comes_from_outside_is_not_taken_for_the_tracers(error: BaseException) -> None:
    with pytest.raises(type(error)) as raised, explained("optimum cannot trace it"):
        raise error
    assert raised.value is error
    assert not isinstance(raised.value, UnsupportedCheckpointError)


def test_our_own_errors_stay_as_they_are() -> None:
    with pytest.raises(UnsupportedCheckpointError, match=r"^no builder$"), explained("optimum cannot trace it"):
        raise UnsupportedCheckpointError("no builder")
