"""LangChain's packages for NVIDIA, Mistral and Google."""

from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from langchain_core.documents import Document
from langchain_google_genai import GoogleGenerativeAIEmbeddings
from langchain_mistralai import MistralAIEmbeddings
from langchain_nvidia_ai_endpoints import NVIDIAEmbeddings, NVIDIARerank

model = CASE["embedding"]


def nvidia(name=model, key=KEY, **options):
    return NVIDIAEmbeddings(model=name, base_url=f"{URL}/v1", api_key=key, **options)


def mistral():
    return MistralAIEmbeddings(model=model, endpoint=f"{URL}/v1/", api_key=KEY, max_retries=1)


def google():
    return GoogleGenerativeAIEmbeddings(model=model, google_api_key=KEY, base_url=URL)


@call
def documents_nvidia():
    return nvidia().embed_documents(TEXTS)


@call
async def documents_asynchronous():
    return await nvidia().aembed_documents(TEXTS)


@call
def query_nvidia():
    return [nvidia().embed_query(text) for text in TEXTS]


@call
def ranked_nvidia():
    ranker = NVIDIARerank(model=CASE["reranker"], base_url=f"{URL}/v1", api_key=KEY, top_n=len(TEXTS))
    found = ranker.compress_documents([Document(text) for text in TEXTS], QUERY)
    return [TEXTS.index(document.page_content) for document in found]


@call
def too_long():
    nvidia(truncate="NONE").embed_documents(["the cat " * CASE["too_long"]])


@call
def vectors_mistral():
    return mistral().embed_documents(TEXTS)


@call
def documents_google():
    return google().embed_documents(TEXTS)


@call
def query_google():
    return [google().embed_query(text) for text in TEXTS]


@call
def unknown_model():
    nvidia("nobody").embed_documents(TEXTS)


@call
def wrong_key():
    nvidia(key="wrong").embed_documents(TEXTS)


told("langchain-nvidia-ai-endpoints")
