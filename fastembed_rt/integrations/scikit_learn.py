"""scikit-learn: texts to vectors as a step of a Pipeline. Needs scikit-learn alone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .. import EmbeddingModel
from ..errors import InvalidTypeError
from ..models.kept_options import KeptOptions, without_secrets
from ..models.prompts import OF_ROLES, check_role, of_role
from ..vectors.dense import Vectors
from .opening import needs, open_model

with needs("scikit-learn", "scikit-learn"):
    from sklearn.base import BaseEstimator, TransformerMixin

__all__ = ["FastEmbedRtVectorizer"]


class FastEmbedRtVectorizer(TransformerMixin, BaseEstimator):
    """Texts (n,) to vectors (n, dim) float32, as `encode` gives them; there is nothing to learn, so `fit` only opens.

    Used as the text vectorizers of scikit-learn are: `transform` works without `fit`, a ColumnTransformer names its
    column as a str. Clones and pickles (joblib too) share the model's engine within a process. A hub token in
    model_kwargs goes into clones, and is neither shown nor pickled.
    """

    model_kwargs = KeptOptions()

    def __init__(
        self,
        model: str | os.PathLike[str] | EmbeddingModel,
        *,
        role: str | None = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        truncate_dim: int | None = None,
        normalize: bool | None = None,
        on_null: str = "error",
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        """Keep the parameters; `fit` or the first `transform` opens the model.

        Args:
            model: a model directory, a checkpoint or a hub repository; or an EmbeddingModel that is open.
            role: "query" or "document" for the prompt and the encoder of that role; None: those of `encode`.
            prompt_name: see `EmbeddingModel.encode`.
            prompt: see there.
            truncate_dim: see there.
            normalize: see there.
            on_null: see there.
            model_kwargs: options of `EmbeddingModel.from_checkpoint`, such as precision, threads.
        """
        self.model = model
        self.role = role
        self.prompt_name = prompt_name
        self.prompt = prompt
        self.truncate_dim = truncate_dim
        self.normalize = normalize
        self.on_null = on_null
        self.model_kwargs = model_kwargs

    def fit(self, X: Any = None, y: Any = None) -> Self:  # noqa: N803 - scikit-learn's name
        """Open the model; texts are not looked at.

        Raises:
            ModelNotFoundError and others: as `EmbeddingModel.from_checkpoint`; InvalidInputError: an unknown role.
        """
        self.__dict__.pop("opened_", None)  # anew, as `fit` is there for
        self._opened()
        return self

    def _opened(self) -> EmbeddingModel:
        """The model of the parameters as they are now, which `set_params` may have changed."""
        if self.role is not None:
            check_role(self.role)
        wanted = (self.model, without_secrets(self.model_kwargs or {}))  # as they are after a pickle, too
        if getattr(self, "opened_", None) != wanted:
            self.model_ = open_model(EmbeddingModel, self.model, self.model_kwargs)
            self.opened_ = wanted
        return self.model_

    def transform(self, X: Any) -> Vectors:  # noqa: N803
        """Vectors (n, dim) of texts (n,): a list, a numpy array, a column of pandas, polars or pyarrow.

        Raises:
            InvalidTypeError: one text instead of several, a table instead of a column; others as for `encode`.
        """
        if isinstance(X, str):
            raise InvalidTypeError("X is one text; pass a list of them")
        if getattr(X, "ndim", 1) != 1:
            raise InvalidTypeError(
                f"X has {X.ndim} dimensions, and texts have one: in a ColumnTransformer, name the column 'text', "
                "not ['text']"
            )
        model = self._opened()
        options: dict[str, Any] = {"prompt_name": self.prompt_name, "prompt": self.prompt}
        if self.role is not None:
            options = of_role(OF_ROLES[self.role], model.prompts, options)
            model = model.for_role(self.role)
        vectors: Vectors = model.encode(
            X, **options, truncate_dim=self.truncate_dim, normalize=self.normalize, on_null=self.on_null
        )
        return vectors

    def get_feature_names_out(self, input_features: Any = None) -> npt.NDArray[Any]:
        """Names of the vectors' numbers, for `set_output(transform="pandas")`."""
        dim = self._opened().dim if self.truncate_dim is None else self.truncate_dim
        name = type(self).__name__.lower()
        return np.array([f"{name}{k}" for k in range(dim)], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = True
        tags.requires_fit = False
        tags.transformer_tags.preserves_dtype = []
        return tags
