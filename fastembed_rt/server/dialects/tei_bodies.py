"""What text-embeddings-inference's routes take and give."""

from __future__ import annotations

from ..inputs import IdRows, Inputs, Pairs, Texts
from ..schema import Anything, Body, Choice, Flag, Key, Listed, Schema, Text, Whole
from .roles import INPUT_TYPE

NUMBERS: Schema = {"type": "array", "items": {"type": "number"}}
VECTORS: Schema = {"type": "array", "items": NUMBERS}
LISTED: Schema = {"type": "array", "items": {"type": "array"}}
TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
SPARSE_VALUE: Schema = {
    "type": "object",
    "properties": {"index": {"type": "integer"}, "value": {"type": "number"}},
    "required": ["index", "value"],
}
SPARSE: Schema = {"type": "array", "items": {"type": "array", "items": SPARSE_VALUE}}
PREDICTION: Schema = {
    "type": "object",
    "properties": {"score": {"type": "number"}, "label": {"type": "string"}},
    "required": ["score", "label"],
}
ROW: Schema = {"type": "array", "items": PREDICTION}
PREDICTIONS: Schema = {"anyOf": [ROW, {"type": "array", "items": ROW}]}
RANK: Schema = {
    "type": "object",
    "properties": {"index": {"type": "integer"}, "score": {"type": "number"}, "text": {"type": "string"}},
    "required": ["index", "score"],
}
RANKS: Schema = {"type": "array", "items": RANK}

CUTTING = [
    Key("truncate", Flag(), None, "true cuts texts over the model's length, false makes them an error"),
    Key("truncation_direction", Choice(("right", "left")), None, "where a text that is too long loses tokens"),
]
PROMPT = Key("prompt_name", Text(), None, "the model's prompt that stands in front of the texts")
USE = [PROMPT, INPUT_TYPE]  # of every route that makes vectors: one that passed one over would leave out a prompt
# Of rerankers, whose instruction a client may write itself.
INSTRUCTED = [
    Key("prompt_name", Text(), None, "a reranker's prompt, in front of the first texts or in its chat template"),
    Key("prompt", Text(), None, "a text instead of a named prompt, such as an instruction"),
]
MODEL = Key("model", Text(), None, "where several are served; without it the first of the task answers")
RAW = Key("raw_scores", Flag(), False, "logits instead of numbers between 0 and 1")

EMBED = Body(
    "EmbedRequest",
    [
        Key("inputs", Inputs()),
        *CUTTING,
        *USE,
        Key("normalize", Flag(), True, "vectors of length 1"),
        Key("dimensions", Whole(), None, "first so many numbers of each vector (Matryoshka); 0 for all"),
        MODEL,
    ],
)
EMBED_ALL = Body("EmbedAllRequest", [Key("inputs", Inputs()), *CUTTING, *USE, MODEL])
PREDICT = Body("PredictRequest", [Key("inputs", Pairs()), *CUTTING, *INSTRUCTED, RAW, MODEL])
RERANK = Body(
    "RerankRequest",
    [
        Key("query", Text("What is deep learning?")),
        Key("texts", Listed(Text())),
        *CUTTING,
        *INSTRUCTED,
        RAW,
        Key("return_text", Flag(), False, "the texts beside their scores"),
        MODEL,
    ],
)
SIMILARITY_PARAMETERS = Body("SimilarityParameters", [*CUTTING, PROMPT])
SIMILARITY = Body(
    "SimilarityRequest",
    [
        Key(
            "inputs",
            Body("SimilarityInputs", [Key("source_sentence", Text()), Key("sentences", Listed(Text()))]),
        ),
        Key("parameters", SIMILARITY_PARAMETERS, SIMILARITY_PARAMETERS.check({})),
        MODEL,
    ],
)
TOKENIZE = Body("TokenizeRequest", [Key("inputs", Texts()), Key("add_special_tokens", Flag(), True), PROMPT, MODEL])
DECODE = Body("DecodeRequest", [Key("ids", IdRows()), Key("skip_special_tokens", Flag(), True), MODEL])
VERTEX = Body("VertexRequest", [Key("instances", Listed(Anything()), says="bodies of the model's own route")])
