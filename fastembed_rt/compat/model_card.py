"""What evaluators and trainers of sentence-transformers write down about a model: kept, not interpreted."""

from __future__ import annotations

from typing import Any


class ModelCardData:
    """Metrics and names by the calls that evaluators make; any other attribute may be set."""

    def __init__(self) -> None:
        self.model: Any = None
        self.model_id: str | None = None
        self.model_name: str | None = None
        self.base_model: str | None = None
        self.base_model_revision: str | None = None
        self.language: Any = []
        self.generate_widget_examples = False
        self.evaluations: dict[str, dict[str, float]] = {}  # by the evaluator's name

    def register_model(self, model: Any) -> None:
        """The model that this is about."""
        self.model = model

    def set_model_id(self, model_id: str) -> None:
        """Its name on the hub."""
        self.model_id = model_id

    def set_base_model(self, model_id: str, revision: str | None = None) -> None:
        """The model that it was trained from."""
        self.base_model = model_id

    def set_evaluation_metrics(self, evaluator: Any, metrics: dict[str, float], epoch: int = 0, step: int = 0) -> None:
        """What an evaluator found."""
        self.evaluations[str(getattr(evaluator, "name", "") or type(evaluator).__name__)] = dict(metrics)
