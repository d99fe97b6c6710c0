"""cohere: ClientV2's embed and rerank."""

import cohere
from calls import CASE, KEY, QUERY, TEXTS, URL, call, told

client = cohere.ClientV2(api_key=KEY, base_url=URL)
model, ranker = CASE["embedding"], CASE["reranker"]
ONCE = {"request_options": {"max_retries": 0}}


def embed(use, **options):
    return client.embed(model=model, texts=TEXTS, input_type=use, **options).embeddings


@call
def documents():
    return embed("search_document", embedding_types=["float"]).float_


@call
def query():
    return embed("search_query", embedding_types=["float"]).float_


@call
def without_a_prompt():
    return embed("clustering", embedding_types=["float"]).float_


@call
def shorter():
    return embed("clustering", embedding_types=["float"], output_dimension=CASE["dimensions"]).float_


@call
def binary():
    return embed("clustering", embedding_types=["binary", "ubinary"]).ubinary


@call
def rerank():
    answer = client.rerank(model=ranker, query=QUERY, documents=TEXTS)
    return [[result.index, result.relevance_score] for result in answer.results]


@call
def rerank_best():
    answer = client.rerank(model=ranker, query=QUERY, documents=TEXTS, top_n=2, max_tokens_per_doc=4096)
    return [[result.index, result.relevance_score] for result in answer.results]


@call
async def asynchronous():
    other = cohere.AsyncClientV2(api_key=KEY, base_url=URL)
    answer = await other.rerank(model=ranker, query=QUERY, documents=TEXTS)
    return [[result.index, result.relevance_score] for result in answer.results]


@call
def unknown_model():
    client.rerank(model="nobody", query=QUERY, documents=TEXTS, **ONCE)


@call
def too_many():
    client.rerank(model=ranker, query=QUERY, documents=["a"] * CASE["too_many"], **ONCE)


@call
def wrong_key():
    cohere.ClientV2(api_key="wrong", base_url=URL).rerank(model=ranker, query=QUERY, documents=TEXTS, **ONCE)


told("cohere")
