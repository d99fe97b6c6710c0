"""langchain-cohere: vectors of queries and documents, and a compressor that ranks."""

from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_core.documents import Document


def embeddings(name=CASE["embedding"], key=KEY):
    return CohereEmbeddings(model=name, base_url=URL, cohere_api_key=key, max_retries=0)


def ranker(name=CASE["reranker"], key=KEY, **options):
    return CohereRerank(model=name, base_url=URL, cohere_api_key=key, **options)


@call
def documents():
    return embeddings().embed_documents(TEXTS)


@call
def query():
    return [embeddings().embed_query(text) for text in TEXTS]


@call
def rerank():
    return [[r["index"], r["relevance_score"]] for r in ranker(top_n=len(TEXTS)).rerank(TEXTS, QUERY)]


@call
def compressed():
    found = ranker(top_n=2).compress_documents([Document(text) for text in TEXTS], QUERY)
    return [[TEXTS.index(d.page_content), d.metadata["relevance_score"]] for d in found]


@call
def unknown_model():
    ranker("nobody").rerank(TEXTS, QUERY)


@call
def wrong_key():
    ranker(key="wrong").rerank(TEXTS, QUERY)


told("langchain-cohere")
