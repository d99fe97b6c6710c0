"""langchain-huggingface: embeddings of an endpoint."""

from calls import CASE, KEY, TEXTS, URL, call, told
from langchain_huggingface import HuggingFaceEndpointEmbeddings


def embeddings(key=KEY, **options):
    return HuggingFaceEndpointEmbeddings(model=f"{URL}/{CASE['embedding']}/", huggingfacehub_api_token=key, **options)


@call
def vectors():
    return embeddings().embed_documents(TEXTS)


@call
def one():
    return [embeddings().embed_query(TEXTS[0])]


@call
def wrong_key():
    embeddings("wrong").embed_documents(TEXTS)


told("langchain-huggingface")
