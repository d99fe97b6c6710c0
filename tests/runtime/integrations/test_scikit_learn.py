"""FastEmbedRtVectorizer as a step among scikit-learn's own."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn")

from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import SkipTestWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import estimator_checks

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ModelNotFoundError
from fastembed_rt.integrations.scikit_learn import FastEmbedRtVectorizer

TEXTS = ["a dog runs", "the house is red", "a cat sleeps", "light over the river", "an old tree", "the dog and the cat"]
LABELS = [1, 0, 1, 0, 0, 1]


@pytest.fixture
def vectorizer(model_dir: Path) -> FastEmbedRtVectorizer:
    return FastEmbedRtVectorizer(str(model_dir), model_kwargs={"threads": 1})


def test_vectors_are_those_of_encode(vectorizer: FastEmbedRtVectorizer, model: EmbeddingModel, reference: Any) -> None:
    found = vectorizer.fit(TEXTS).transform(TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, model.encode(TEXTS))
    np.testing.assert_allclose(found, reference.encode(TEXTS), rtol=0, atol=2e-5)
    for given in (np.array(TEXTS), np.array(TEXTS, dtype=object), pd.Series(TEXTS, index=range(5, 11))):
        np.testing.assert_array_equal(vectorizer.transform(given), found)
    np.testing.assert_array_equal(vectorizer.fit_transform(TEXTS), found)


def test_it_transforms_without_fit(vectorizer: FastEmbedRtVectorizer, model: EmbeddingModel) -> None:
    np.testing.assert_array_equal(vectorizer.transform(TEXTS), model.encode(TEXTS))


@pytest.mark.parametrize("role", ["query", "document"])
def test_roles_and_options(model_dir: Path, model: EmbeddingModel, role: str) -> None:
    made = FastEmbedRtVectorizer(model_dir, role=role)
    wanted = getattr(model, f"encode_{role}")(TEXTS)
    np.testing.assert_array_equal(made.transform(TEXTS), wanted)
    assert np.abs(wanted - model.encode(TEXTS)).max() > 0.01
    short = FastEmbedRtVectorizer(model_dir, truncate_dim=8, prompt="the ")
    np.testing.assert_array_equal(short.fit_transform(TEXTS), model.encode(TEXTS, truncate_dim=8, prompt="the "))
    assert list(short.get_feature_names_out()) == [f"fastembedrtvectorizer{k}" for k in range(8)]
    with_nulls = FastEmbedRtVectorizer(model_dir, on_null="zero").transform(pd.Series(["a dog", None]))
    np.testing.assert_array_equal(with_nulls, [model.encode("a dog"), np.zeros(model.dim)])


def test_clones_have_the_parameters_and_share_an_open_model(model: EmbeddingModel) -> None:
    made = FastEmbedRtVectorizer(model, truncate_dim=8, role="query").fit()
    again = clone(made)
    assert not hasattr(again, "model_")
    parameters, others = made.get_params(), again.get_params()
    assert parameters.keys() == others.keys()
    assert all(parameters[name] == others[name] for name in parameters.keys() - {"model"})
    np.testing.assert_array_equal(again.fit_transform(TEXTS), made.transform(TEXTS))
    assert again.model_._running() is model._running()
    assert again.set_params(truncate_dim=4).fit_transform(TEXTS).shape == (6, 4)


def test_parameters_that_are_set_later_hold(
    vectorizer: FastEmbedRtVectorizer, model: EmbeddingModel, export_pair: Any, model_dir: Path
) -> None:
    vectorizer.fit(TEXTS)
    vectorizer.set_params(truncate_dim=8)
    assert vectorizer.transform(TEXTS).shape == (6, len(vectorizer.get_feature_names_out())) == (6, 8)
    other = export_pair(prompts={"query": "query : ", "document": "passage : "}, max_seq_length=16, seed=5)
    vectorizer.set_params(model=str(other.directory), truncate_dim=None)
    with EmbeddingModel(other.directory) as wanted:
        np.testing.assert_array_equal(vectorizer.transform(TEXTS), wanted.encode(TEXTS))
    vectorizer.set_params(model=model_dir, model_kwargs={"truncate_dim": 5})
    assert len(vectorizer.get_feature_names_out()) == 5
    np.testing.assert_array_equal(vectorizer.transform(TEXTS), model.encode(TEXTS, truncate_dim=5))
    before = vectorizer.model_
    vectorizer.set_params(model_kwargs={"truncate_dim": 5}, role="query").transform(TEXTS)
    assert vectorizer.model_ is before  # what is the same is not opened again
    again = pickle.loads(pickle.dumps(vectorizer))
    arrived = again.model_
    np.testing.assert_array_equal(again.transform(TEXTS), model.encode_query(TEXTS, truncate_dim=5))
    assert again.model_ is arrived
    with pytest.raises(InvalidInputError, match="role 'passage' is not known"):
        vectorizer.set_params(role="passage").transform(TEXTS)


def test_without_a_role_texts_have_the_default_prompt(model_dir: Path, model: EmbeddingModel) -> None:
    made = FastEmbedRtVectorizer(model_dir, model_kwargs={"default_prompt_name": "query"})
    np.testing.assert_array_equal(made.transform(TEXTS), model.encode_query(TEXTS))


def test_a_pickle_has_no_hub_token(pair: Any) -> None:
    made = FastEmbedRtVectorizer(str(pair.directory), model_kwargs={"threads": 1, "token": "a-secret"}).fit()
    packed = pickle.dumps(made)
    assert b"a-secret" not in packed
    assert pickle.loads(packed).model_kwargs == {"threads": 1}
    assert pickle.loads(pickle.dumps(FastEmbedRtVectorizer(str(pair.directory)))).model_kwargs is None


def test_a_hub_token_is_in_clones_and_never_shown(pair: Any) -> None:
    made = FastEmbedRtVectorizer(str(pair.directory), model_kwargs={"threads": 1, "token": "a-secret"})
    for shown in (made, make_pipeline(made), ColumnTransformer([("text", made, "text")])):
        assert "a-secret" not in f"{shown!r} {shown._repr_html_()} {shown.get_params()}"
    assert "threads" in repr(made)
    again = clone(clone(make_pipeline(made)))[0]
    assert again.get_params()["model_kwargs"] == {"threads": 1, "token": "a-secret"}
    assert again.model_kwargs["token"] == "a-secret"
    again.set_params(model_kwargs={"token": "a-secret"})
    assert "a-secret" not in repr(again)
    assert b"a-secret" not in pickle.dumps(again)


def test_pickle_and_joblib(vectorizer: FastEmbedRtVectorizer, tmp_path: Path) -> None:
    wanted = vectorizer.fit().transform(TEXTS)
    joblib.dump(vectorizer, tmp_path / "step.joblib")
    for again in (joblib.load(tmp_path / "step.joblib"), pickle.loads(pickle.dumps(vectorizer))):
        np.testing.assert_array_equal(again.transform(TEXTS), wanted)
        assert again.model_._running() is vectorizer.model_._running()


def test_a_pipeline_and_a_grid_search(vectorizer: FastEmbedRtVectorizer, model: EmbeddingModel) -> None:
    pipeline = make_pipeline(vectorizer, StandardScaler(), LogisticRegression())
    pipeline.fit(TEXTS, LABELS)
    by_hand = make_pipeline(StandardScaler(), LogisticRegression()).fit(model.encode(TEXTS), LABELS)
    np.testing.assert_array_equal(pipeline.predict_proba(TEXTS), by_hand.predict_proba(model.encode(TEXTS)))
    search = GridSearchCV(pipeline, {"fastembedrtvectorizer__truncate_dim": [4, None]}, cv=2)
    search.fit(TEXTS, LABELS)
    assert search.best_params_["fastembedrtvectorizer__truncate_dim"] in (4, None)
    joined = FeatureUnion([("all", vectorizer), ("few", clone(vectorizer).set_params(truncate_dim=4))])
    assert joined.fit_transform(TEXTS).shape == (6, model.dim + 4)


def test_a_column_of_a_table(vectorizer: FastEmbedRtVectorizer, model: EmbeddingModel) -> None:
    frame = pd.DataFrame({"text": TEXTS, "n": range(6)})
    step = ColumnTransformer([("text", vectorizer, "text"), ("n", "passthrough", ["n"])])
    found = step.fit_transform(frame)
    np.testing.assert_array_equal(found[:, : model.dim], model.encode(TEXTS))
    named = clone(vectorizer).set_output(transform="pandas").fit_transform(frame["text"])
    assert list(named.columns[:2]) == ["fastembedrtvectorizer0", "fastembedrtvectorizer1"]
    np.testing.assert_array_equal(named.to_numpy(), model.encode(TEXTS))
    with pytest.raises(InvalidTypeError, match="not \\['text'\\]"):
        vectorizer.transform(frame[["text"]])


def test_wrong_arguments_are_named(model_dir: Path, vectorizer: FastEmbedRtVectorizer) -> None:
    with pytest.raises(InvalidTypeError, match="one text"):
        vectorizer.transform("a dog")
    with pytest.raises(InvalidInputError, match="role 'passage' is not known"):
        FastEmbedRtVectorizer(model_dir, role="passage").fit()
    with pytest.raises(ModelNotFoundError):
        FastEmbedRtVectorizer("/nowhere").fit()


def test_the_checks_of_scikit_learn_that_are_for_text_vectorizers(model: EmbeddingModel) -> None:
    # check_estimator itself runs nothing on what takes texts, and says so. These are its checks that need no table.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        estimator_checks.check_estimator(FastEmbedRtVectorizer(model))
    name = "FastEmbedRtVectorizer"
    for check in (
        "check_estimator_cloneable",
        "check_estimator_repr",
        "check_no_attributes_set_in_init",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_get_params_invariance",
        "check_set_params",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_mixin_order",
    ):
        getattr(estimator_checks, check)(name, FastEmbedRtVectorizer(model))
