"""google-genai: embed_content of one text and of several, by task and size; errors."""

from calls import CASE, KEY, TEXTS, URL, call, told
from google import genai
from google.genai import types


def client_of(key):
    return genai.Client(api_key=key, http_options=types.HttpOptions(base_url=URL))


client = client_of(KEY)
model = CASE["embedding"]


def vectors_of(answer):
    return [entry.values for entry in answer.embeddings]


def embed(client=client, contents=TEXTS, model=model, **config):
    return vectors_of(client.models.embed_content(model=model, contents=contents, config=config or None))


@call
def vectors():
    return embed()


@call
def one():
    return embed(contents=TEXTS[0])


@call
def prefixed():
    return embed(model=f"models/{model}")


@call
def query():
    return embed(task_type="RETRIEVAL_QUERY")


@call
def document():
    return embed(task_type="RETRIEVAL_DOCUMENT")


@call
def titled():
    embed(task_type="RETRIEVAL_DOCUMENT", title="Texts")


@call
def shorter():
    return embed(output_dimensionality=CASE["dimensions"])


@call
async def asynchronous():
    return vectors_of(await client.aio.models.embed_content(model=model, contents=TEXTS))


@call
def image():
    embed(contents=[types.Part.from_bytes(data=b"\x89PNG", mime_type="image/png")])


@call
def unknown_model():
    embed(model="nobody")


@call
def too_many():
    embed(contents=["a"] * CASE["too_many"])


@call
def wrong_key():
    embed(client_of("wrong"))


told("google-genai")
