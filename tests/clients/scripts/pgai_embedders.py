"""pgai: the embedders of its vectorizer, for OpenAI's API and through LiteLLM."""

from calls import CASE, KEY, TEXTS, URL, call, told
from pgai.vectorizer.embedders import LiteLLM, OpenAI

model = CASE["embedding"]


async def embed(embedder, key=KEY):
    embedder.set_api_key({"THE_KEY": key})
    return [vector async for batch in embedder.embed(TEXTS) for vector in batch]


def openai(name=model, dimensions=CASE["dim"]):
    given = {"base_url": f"{URL}/v1", "api_key_name": "THE_KEY"}
    return OpenAI(implementation="openai", model=name, dimensions=dimensions, **given)


@call
async def vectors_openai():
    return await embed(openai())


@call
async def shorter():
    return await embed(openai(dimensions=CASE["dimensions"]))


@call
async def vectors_litellm():
    options = {"api_base": f"{URL}/v1"}
    given = {"model": f"openai/{model}", "api_key_name": "THE_KEY", "extra_options": options}
    return await embed(LiteLLM(implementation="litellm", **given))


@call
async def unknown_model():
    await embed(openai("nobody"))


@call
async def wrong_key():
    await embed(openai(), "wrong")


told("pgai")
