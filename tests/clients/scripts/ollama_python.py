"""ollama: embed and embeddings, sync and async, and what it asks of models."""

import ollama
from calls import CASE, KEY, TEXTS, URL, call, told

MODEL = CASE["embedding"]


def client(key=KEY, kind=ollama.Client, path=""):
    return kind(host=URL + path, headers={"Authorization": f"Bearer {key}"})


def embed(**options):
    return client().embed(**{"model": MODEL, "input": TEXTS, **options}).embeddings


@call
def vectors():
    return embed()


@call
def one():
    return embed(input=TEXTS[0], keep_alive="5m", options={"num_ctx": 2048})


@call
def shorter():
    return embed(dimensions=CASE["dimensions"])


@call
def query():
    return client(path="/query").embed(model=MODEL, input=TEXTS).embeddings


@call
def first_route():
    return [client().embeddings(model=MODEL, prompt=text).embedding for text in TEXTS]


@call
async def asynchronous():
    return (await client(kind=ollama.AsyncClient).embed(model=MODEL, input=TEXTS)).embeddings


@call
def tagged():
    return embed(model=f"{MODEL}:latest")


@call
def listed():
    names = [model.model for model in client().list().models]
    running = [model.name for model in client().ps().models]
    shown = client().show(names[0])
    return [names, running == names, shown.capabilities, client().pull(MODEL).status]


@call
def unknown_model():
    embed(model="nobody")


@call
def too_many():
    embed(input=["a"] * CASE["too_many"])


@call
def wrong_key():
    client("wrong").embed(model=MODEL, input=TEXTS)


told("ollama")
