"""What clients call the use of a text, as our roles and prompts."""

from __future__ import annotations

from typing import Any

from ..exchange import Exchange
from ..models import Served
from ..schema import Key, Text

INPUT_TYPE = Key("input_type", Text(), None, "what the texts are for: query, document, or the name of a prompt")
TASK = Key("task", Text(), None, "what Jina's clients call `input_type`")
QUERIES = (
    *("query", "search_query", "retrieval.query", "retrieval_query"),
    *("question_answering", "fact_verification", "code_retrieval_query"),  # Google's uses of what documents answer
)
DOCUMENTS = ("document", "passage", "search_document", "retrieval.passage", "retrieval_document")


def with_role(exchange: Exchange, served: Served, body: dict[str, Any]) -> dict[str, Any]:
    """Options of a model: what the body says with `prompt_name` or `input_type`, else what the path says.

    A use that is neither of a query nor of a document, such as clustering, has the prompt of its name, if there is one.
    """
    options = exchange.options(body)
    use = body.get("input_type")
    if use is None:
        use = body.get("task")
    if use is None or options["prompt_name"] is not None:
        return options
    if use.lower() in QUERIES:
        return {"prompt_name": None, "role": "query"}
    if use.lower() in DOCUMENTS:
        return {"prompt_name": None, "role": "document"}
    return {"prompt_name": use if use in served.model.prompts else None, "role": None}
