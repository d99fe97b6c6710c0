"""langchain-openai: with the switch that has it send strings, and without."""

from calls import CASE, KEY, TEXTS, URL, call, told
from langchain_openai import OpenAIEmbeddings


def embeddings(name=CASE["embedding"], key=KEY, **options):
    return OpenAIEmbeddings(model=name, base_url=f"{URL}/v1", api_key=key, max_retries=0, **options)


@call
def vectors():
    return embeddings(check_embedding_ctx_length=False).embed_documents(TEXTS)


@call
def one():
    return [embeddings(check_embedding_ctx_length=False).embed_query(TEXTS[0])]


@call
def shorter():
    return embeddings(check_embedding_ctx_length=False, dimensions=CASE["dimensions"]).embed_documents(TEXTS)


@call
async def asynchronous():
    return await embeddings(check_embedding_ctx_length=False).aembed_documents(TEXTS)


@call
def token_ids():
    # As it does by itself: ids of OpenAI's tokenizer, whose file is not here.
    from langchain_openai.embeddings import base

    class Encoding:
        def encode(self, text, **options):
            return [ord(letter) for letter in text]

        def encode_ordinary(self, text):
            return self.encode(text)

        def decode(self, ids):
            return "".join(map(chr, ids))

    base.tiktoken.get_encoding = base.tiktoken.encoding_for_model = lambda name: Encoding()
    embeddings().embed_documents(TEXTS)


@call
def unknown_model():
    embeddings("nobody", check_embedding_ctx_length=False).embed_documents(TEXTS)


@call
def too_many():
    many = ["a"] * CASE["too_many"]
    embeddings(check_embedding_ctx_length=False, chunk_size=len(many)).embed_documents(many)


@call
def wrong_key():
    embeddings(key="wrong", check_embedding_ctx_length=False).embed_documents(TEXTS)


told("langchain-openai")
