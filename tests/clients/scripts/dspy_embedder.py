"""DSPy: an Embedder, which goes through litellm."""

import dspy
from calls import CASE, KEY, TEXTS, URL, call, told


def embedder(name, key=KEY):
    return dspy.Embedder(f"openai/{name}", api_base=f"{URL}/v1", api_key=key, caching=False, num_retries=0)


@call
def vectors():
    return embedder(CASE["embedding"])(TEXTS).tolist()


@call
def retrieved():
    found = dspy.retrievers.Embeddings(corpus=TEXTS, embedder=embedder(CASE["embedding"]), k=1)(TEXTS[1])
    return found.passages


@call
def unknown_model():
    embedder("nobody")(TEXTS)


@call
def wrong_key():
    embedder(CASE["embedding"], "wrong")(TEXTS)


told("dspy")
