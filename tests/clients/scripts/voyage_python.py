"""voyageai: vectors by use and by type, which it asks for in base64; rerank; errors."""

import voyageai
from calls import CASE, KEY, QUERY, TEXTS, URL, call, told

client = voyageai.Client(api_key=KEY, base_url=f"{URL}/v1")
model, ranker = CASE["embedding"], CASE["reranker"]


def embed(**options):
    return client.embed(**{"texts": TEXTS, "model": model, **options}).embeddings


def ranked(answer):
    assert answer.total_tokens > 0 and all(TEXTS[result.index] == result.document for result in answer.results)
    return [[result.index, result.relevance_score] for result in answer.results]


@call
def vectors():
    answer = client.embed(TEXTS, model=model)
    assert answer.total_tokens > 0
    return answer.embeddings


@call
def query():
    return embed(input_type="query")


@call
def document():
    return embed(input_type="document")


@call
def shorter():
    return embed(output_dimension=CASE["dimensions"])


@call
def binary():
    return embed(output_dtype="ubinary")


@call
def bytes_of_a_range():
    embed(output_dtype="int8")


@call
async def asynchronous():
    return (await voyageai.AsyncClient(api_key=KEY, base_url=f"{URL}/v1").embed(TEXTS, model=model)).embeddings


@call
def rerank():
    return ranked(client.rerank(QUERY, TEXTS, model=ranker))


@call
def rerank_best():
    return ranked(client.rerank(QUERY, TEXTS, model=ranker, top_k=2))


@call
def too_long():
    embed(texts=["the cat " * CASE["too_long"]], truncation=False)


@call
def rerank_too_long():
    client.rerank(QUERY, ["the cat " * CASE["too_long"]], model=ranker, truncation=False)


@call
def unknown_model():
    embed(model="nobody")


@call
def too_many():
    embed(texts=["a"] * CASE["too_many"])


@call
def wrong_key():
    voyageai.Client(api_key="wrong", base_url=f"{URL}/v1").embed(TEXTS, model=model)


told("voyageai")
