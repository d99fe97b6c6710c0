"""Constructors of all tasks take the same options, explained in the same words."""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
from multi_vectors import save_multi_vector
from sparse_encoders import save_splade

from fastembed_rt import EmbeddingModel, Reranker, SparseModel
from fastembed_rt import LateInteractionModel as Late
from fastembed_rt.models.opening import LoadOptions, Source
from fastembed_rt_export.pipeline import ExportOptions, export

CLASSES = (EmbeddingModel, Late, Reranker, SparseModel)
SHARED = list(LoadOptions.__annotations__)


def test_the_record_and_its_defaults_name_the_same_options() -> None:
    own = {"path_or_name", "route"}
    assert {field.name for field in fields(Source)} - own == set(SHARED)
    given, defaults = get_type_hints(LoadOptions), get_type_hints(Source)
    assert given == {name: kind for name, kind in defaults.items() if name not in own}


@pytest.mark.parametrize("kind", CLASSES)
def test_the_signature_and_the_text_have_every_option(kind: type) -> None:
    parameters = inspect.signature(kind).parameters
    defaults = {field.name: field.default for field in fields(Source)}
    for name in SHARED:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == defaults[name]
    text = inspect.getdoc(kind.__init__) or ""  # type: ignore[misc]
    for name in parameters:
        assert text.count(f"\n    {name}: ") == 1, name
    assert "**" not in text
    assert text.index("path_or_name: ") < text.index("provider: ") < text.index("Raises:")


@pytest.mark.parametrize("kind", CLASSES)
def test_a_misspelt_option_is_named_with_the_one_that_is_meant(kind: Any) -> None:
    with pytest.raises(TypeError, match=f"{kind.__name__} has no option 'provder'; provder: did you mean provider="):
        kind("nowhere", provder="cuda")
    with pytest.raises(TypeError, match="zzz: it takes cache_dir, check_hashes, "):
        kind("nowhere", zzz=1)


TEXTS = ["the cat sleeps", "a dog runs quickly under the old tree", "city", "a river of light " * 5]


def test_devices_work_for_every_task(tmp_path: Path) -> None:
    made: dict[Any, Path] = {}
    for checkpoint, kind in ((save_splade(tmp_path / "s"), SparseModel), (save_multi_vector(tmp_path / "l"), Late)):
        made[kind] = tmp_path / kind.__name__
        export(str(checkpoint), ExportOptions(output=made[kind], verify=False))
    with SparseModel(made[SparseModel]) as one, SparseModel(made[SparseModel], device_ids=[0, 1]) as two:
        for sparse, wanted in zip(two.encode(TEXTS), one.encode(TEXTS), strict=True):
            assert sparse.as_dict() == wanted.as_dict()
    with Late(made[Late]) as one_late, Late(made[Late], device_ids=[0, 1], document_length=9) as two_late:
        one_late.document_length = 9
        found, expected = two_late.encode_document(TEXTS), one_late.encode_document(TEXTS)
        for vectors, others in zip(found, expected, strict=True):
            np.testing.assert_array_equal(vectors, others)
