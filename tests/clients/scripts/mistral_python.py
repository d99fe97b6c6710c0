"""mistralai: vectors by size and type; the list of models; errors."""

from calls import CASE, KEY, TEXTS, URL, call, told
from mistralai.client import Mistral

client = Mistral(api_key=KEY, server_url=URL)
model = CASE["embedding"]


def vectors_of(answer):
    assert answer.usage.prompt_tokens > 0 and [entry.index for entry in answer.data] == list(range(len(answer.data)))
    return [entry.embedding for entry in answer.data]


def create(client=client, **options):
    return vectors_of(client.embeddings.create(**{"model": model, "inputs": TEXTS, **options}))


@call
def vectors():
    return create()


@call
def one():
    return create(inputs=TEXTS[0])


@call
def shorter():
    return create(output_dimension=CASE["dimensions"])


@call
def binary():
    return create(output_dtype="ubinary")


@call
def bytes_of_a_range():
    create(output_dtype="uint8")


@call
async def asynchronous():
    return vectors_of(await client.embeddings.create_async(model=model, inputs=TEXTS))


@call
def unknown_model():
    create(model="nobody")


@call
def too_many():
    create(inputs=["a"] * CASE["too_many"])


@call
def wrong_key():
    create(Mistral(api_key="wrong", server_url=URL))


told("mistralai")
