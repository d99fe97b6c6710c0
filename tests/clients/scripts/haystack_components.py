"""Haystack: embedders of OpenAI and of TEI by the type of their API, and the ranker of TEI."""

from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from haystack.utils import Secret
from haystack_integrations.components.embedders.cohere import CohereTextEmbedder
from haystack_integrations.components.embedders.huggingface_api import (
    HuggingFaceAPIDocumentEmbedder,
    HuggingFaceAPITextEmbedder,
    HuggingFaceTEISparseDocumentEmbedder,
    HuggingFaceTEISparseTextEmbedder,
)
from haystack_integrations.components.rankers.cohere import CohereRanker
from haystack_integrations.components.rankers.huggingface_api import HuggingFaceTEIRanker

key = Secret.from_token(KEY)
openai = {"model": CASE["embedding"], "api_base_url": f"{URL}/v1", "max_retries": 0}
tei = {"api_type": "text_embeddings_inference", "api_params": {"url": URL}, "token": key}


def documents():
    return [Document(content=text) for text in TEXTS]


@call
def openai_documents():
    found = OpenAIDocumentEmbedder(api_key=key, progress_bar=False, **openai).run(documents())["documents"]
    return [document.embedding for document in found]


@call
def openai_text():
    return [OpenAITextEmbedder(api_key=key, **openai).run(TEXTS[0])["embedding"]]


@call
def tei_documents_as_by_default():
    found = HuggingFaceAPIDocumentEmbedder(progress_bar=False, **tei).run(documents())["documents"]
    return [document.embedding for document in found]


@call
def tei_documents():
    found = HuggingFaceAPIDocumentEmbedder(progress_bar=False, normalize=True, **tei).run(documents())["documents"]
    return [document.embedding for document in found]


@call
def tei_text():
    return [HuggingFaceAPITextEmbedder(normalize=True, **tei).run(TEXTS[0])["embedding"]]


@call
def sparse_documents():
    embedder = HuggingFaceTEISparseDocumentEmbedder(api_base_url=URL, token=key, progress_bar=False)
    found = [document.sparse_embedding for document in embedder.run(documents())["documents"]]
    return [[vector.indices, vector.values] for vector in found]


@call
def sparse_text():
    vector = HuggingFaceTEISparseTextEmbedder(api_base_url=URL, token=key).run(TEXTS[0])["sparse_embedding"]
    return [[vector.indices, vector.values]]


@call
def cohere_text():
    embedder = CohereTextEmbedder(model=CASE["embedding"], api_key=key, api_base_url=URL, input_type="search_query")
    return [embedder.run(TEXTS[0])["embedding"]]


@call
def cohere_ranker():
    found = CohereRanker(model=CASE["reranker"], api_key=key, api_base_url=URL, top_k=2)
    return [[TEXTS.index(d.content), d.score] for d in found.run(query=QUERY, documents=documents())["documents"]]


@call
def ranker():
    found = HuggingFaceTEIRanker(url=URL, token=key, top_k=2).run(query=QUERY, documents=documents())["documents"]
    return [[TEXTS.index(document.content), document.score] for document in found]


@call
def ranker_raw():
    found = HuggingFaceTEIRanker(url=URL, token=key, raw_scores=True).run(query=QUERY, documents=documents())
    return [TEXTS.index(document.content) for document in found["documents"]]


@call
def unknown_model():
    OpenAITextEmbedder(api_key=key, **{**openai, "model": "nobody"}).run(TEXTS[0])


@call
def wrong_key():
    wrong = Secret.from_token("wrong")
    HuggingFaceTEIRanker(url=URL, token=wrong, max_retries=0).run(query=QUERY, documents=documents())


told("haystack-ai")
