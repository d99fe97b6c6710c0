"""Models saved and pushed, as they are now, by sentence-transformers' calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ...errors import InvalidInputError
from ...manifest import Manifest
from .. import saving
from ..model_card import ModelCardData


class Saved:
    """A model of ours whose directory is copied with what has been set since."""

    prompts: dict[str, str]
    default_prompt_name: str | None
    model_card_data: ModelCardData
    _given_limit: Callable[[], int | None]
    _model: Any

    def _settings(self, described: Manifest) -> dict[str, Any]:
        """Fields of an encoder's manifest as they are now."""
        saved, default, limit = described.prompts, self.default_prompt_name, self._given_limit()
        return {
            "prompts": {name: text for name, text in self.prompts.items() if text or name in saved or name == default},
            "default_prompt_name": default,
            # An encoder with fewer positions than the limit for all takes as many as it has.
            "max_length": described.max_length if limit is None else min(limit, described.max_positions),
        }

    def _now(self) -> Manifest:
        """The manifest with all that has been set since, in each of its encoders."""
        described: Manifest = self._model.manifest
        routes = {role: replace(route, **self._settings(route)) for role, route in described.routes.items()}
        return replace(described, **self._settings(described), routes=routes)

    def save(
        self,
        path: str,
        model_name: str | None = None,
        create_model_card: bool = True,
        train_datasets: list[str] | None = None,
        safe_serialization: bool = True,
    ) -> None:
        """Copy the model directory to `path`, with prompts, limit, similarity and activation as they are now.

        Args:
            path: where to; made if it is not there.
            model_name: without effect: the card keeps the export's name.
            create_model_card: whether README.md goes along.
            train_datasets: without effect.
            safe_serialization: without effect: weights are in ONNX files.

        Raises:
            InvalidInputError: `path` is a file, or an activation that is not the identity or the sigmoid.
        """
        saving.save(self._model.path, self._model.manifest, path, card=create_model_card, now=self._now())

    def save_pretrained(self, path: str, *arguments: Any, **options: Any) -> None:
        """`save`."""
        self.save(path, *arguments, **options)

    def push_to_hub(
        self,
        repo_id: str,
        token: str | None = None,
        private: bool | None = None,
        safe_serialization: bool = True,
        commit_message: str | None = None,
        local_model_path: str | None = None,
        exist_ok: bool = False,
        replace_model_card: bool = False,
        train_datasets: list[str] | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Upload the model directory; the URL of the commit, or of the pull request. Arguments as for `saving.push`."""
        name, url = saving.push(
            self.save,
            repo_id,
            token=token,
            private=private,
            commit_message=commit_message or f"Add new {type(self).__name__} model",
            local_model_path=local_model_path,
            exist_ok=exist_ok,
            replace_model_card=replace_model_card,
            revision=revision,
            create_pr=create_pr,
        )
        self.model_card_data.set_model_id(name)
        return url

    def save_to_hub(self, repo_id: str, **options: Any) -> str:
        """`push_to_hub` under its older name."""
        organization = options.pop("organization", None)
        if organization is not None:
            owner, _, name = repo_id.rpartition("/")
            if owner not in ("", organization):
                raise InvalidInputError(f"organization {organization!r} is not the owner of {repo_id!r}; leave it out")
            repo_id = f"{organization}/{name}"
        return self.push_to_hub(repo_id, **options)
