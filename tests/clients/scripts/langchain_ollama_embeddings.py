"""langchain-ollama: OllamaEmbeddings, which looks first whether there is such a model."""

from calls import CASE, KEY, TEXTS, URL, call, told
from langchain_ollama import OllamaEmbeddings


def embeddings(name=CASE["embedding"], key=KEY, **options):
    headers = {"headers": {"Authorization": f"Bearer {key}"}}
    return OllamaEmbeddings(model=name, base_url=URL, client_kwargs=headers, **options)


@call
def vectors():
    return embeddings(validate_model_on_init=True).embed_documents(TEXTS)


@call
def one():
    return [embeddings().embed_query(TEXTS[0])]


@call
async def asynchronous():
    return await embeddings().aembed_documents(TEXTS)


@call
def unknown_model():
    embeddings("nobody").embed_documents(TEXTS)


@call
def unknown_at_the_start():
    embeddings("nobody", validate_model_on_init=True)


@call
def wrong_key():
    embeddings(key="wrong").embed_documents(TEXTS)


told("langchain-ollama")
