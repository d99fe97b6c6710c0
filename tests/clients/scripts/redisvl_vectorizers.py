"""RedisVL: its vectorizers and rerankers for OpenAI, Voyage and Cohere."""

from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from redisvl.utils.rerank import CohereReranker, VoyageAIReranker
from redisvl.utils.vectorize import (
    CohereTextVectorizer,
    OpenAITextVectorizer,
    VoyageAIVectorizer,
)

model, ranker = CASE["embedding"], CASE["reranker"]


def openai():
    return OpenAITextVectorizer(model, api_config={"api_key": KEY, "base_url": f"{URL}/v1"})


@call
def vectors_openai():
    vectorizer = openai()
    assert vectorizer.dims == CASE["dim"]
    return vectorizer.embed_many(TEXTS, batch_size=3)


@call
async def asynchronous():
    return await openai().aembed_many(TEXTS)


@call
def shorter():
    return openai().embed_many(TEXTS, dimensions=CASE["dimensions"])


@call
def query_voyage():
    vectorizer = VoyageAIVectorizer(model, api_config={"api_key": KEY}, base_url=f"{URL}/v1")
    return vectorizer.embed_many(TEXTS, input_type="query")


@call
def documents_cohere():
    vectorizer = CohereTextVectorizer(model, api_config={"api_key": KEY}, base_url=URL)
    return vectorizer.embed_many(TEXTS, input_type="search_document")


def ranked(found):
    texts, scores = found
    return [[TEXTS.index(text), score] for text, score in zip(texts, scores, strict=True)]


@call
def reranked_voyage():
    reranker = VoyageAIReranker(ranker, limit=2, api_config={"api_key": KEY}, base_url=f"{URL}/v1")
    return ranked(reranker.rank(QUERY, TEXTS))


@call
def reranked_cohere():
    reranker = CohereReranker(ranker, limit=2, api_config={"api_key": KEY}, base_url=URL)
    return ranked(reranker.rank(QUERY, TEXTS))


told("redisvl")
