"""openai: vectors as base64, which it asks for unless told, and as numbers; the list of models; errors."""

import openai
from calls import CASE, KEY, TEXTS, URL, call, told

client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
model = CASE["embedding"]


def vectors_of(answer):
    assert answer.object == "list" and [entry.index for entry in answer.data] == list(range(len(answer.data)))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 0
    return [entry.embedding for entry in answer.data]


@call
def vectors():
    return vectors_of(client.embeddings.create(model=model, input=TEXTS))


@call
def numbers():
    return vectors_of(client.embeddings.create(model=model, input=TEXTS, encoding_format="float"))


@call
def one():
    return vectors_of(client.embeddings.create(model=model, input=TEXTS[0], user="somebody"))


@call
def shorter():
    return vectors_of(client.embeddings.create(model=model, input=TEXTS, dimensions=CASE["dimensions"]))


@call
def query():
    return vectors_of(client.embeddings.create(model=model, input=TEXTS, extra_body={"input_type": "query"}))


@call
async def asynchronous():
    async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0) as other:
        return vectors_of(await other.embeddings.create(model=model, input=TEXTS))


@call
def models():
    assert client.models.retrieve(model).id == model
    return [entry.id for entry in client.models.list().data]


@call
def unknown_model():
    client.embeddings.create(model="nobody", input=TEXTS)


@call
def too_many():
    client.embeddings.create(model=model, input=["a"] * CASE["too_many"])


@call
def too_large():
    client.embeddings.create(model=model, input="a" * CASE["too_large"])


@call
def token_ids():
    client.embeddings.create(model=model, input=[[1, 5, 4], [6]])


@call
def wrong_key():
    client.with_options(api_key="wrong").embeddings.create(model=model, input=TEXTS)


told("openai")
