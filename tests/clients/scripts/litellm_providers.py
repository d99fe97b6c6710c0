"""litellm: the same server through its providers."""

import litellm
from calls import CASE, KEY, QUERY, TEXTS, URL, call, told

litellm.suppress_debug_info = True
model, ranker = CASE["embedding"], CASE["reranker"]


def vectors_of(answer):
    return [entry["embedding"] for entry in answer.data]


def ranked(answer):
    return [[result["index"], result["relevance_score"]] for result in answer.results]


def embedding(provider, base, **options):
    options = {"input": TEXTS, "api_key": KEY, "max_retries": 0, **options}
    return vectors_of(litellm.embedding(f"{provider}/{options.pop('name', model)}", api_base=base, **options))


def rerank(provider, base, **options):
    return litellm.rerank(
        f"{provider}/{options.pop('name', ranker)}", query=QUERY, documents=TEXTS, api_base=base, api_key=KEY, **options
    )


@call
def openai():
    return embedding("openai", f"{URL}/v1")


@call
def openai_float():
    return embedding("openai", f"{URL}/v1", encoding_format="float")


@call
def openai_shorter():
    allowed = {"allowed_openai_params": ["dimensions"]}
    return embedding("openai", f"{URL}/v1", dimensions=CASE["dimensions"], **allowed)


@call
def hosted_vllm():
    return embedding("hosted_vllm", f"{URL}/v1")


@call
def jina_ai():
    return embedding("jina_ai", f"{URL}/v1")


@call
def infinity():
    return embedding("infinity", URL)


@call
def cohere():
    return embedding("cohere", f"{URL}/v2/embed", input_type="search_query")


@call
def huggingface():
    return embedding("huggingface", f"{URL}/embed", input_type="embed")  # else it asks the hub what the model is for


@call
def hosted_vllm_rerank():
    return ranked(rerank("hosted_vllm", URL))


@call
def jina_ai_rerank():
    return ranked(rerank("jina_ai", f"{URL}/v1/rerank"))


@call
def cohere_rerank():
    return ranked(rerank("cohere", URL, top_n=2))


@call
def infinity_rerank():
    return ranked(rerank("infinity", URL, return_documents=False))


@call
def infinity_rerank_documents():
    answer = rerank("infinity", f"{URL}/infinity", return_documents=True)
    return [result["document"]["text"] for result in answer.results]


@call
def huggingface_rerank():
    return ranked(rerank("huggingface", URL))


@call
def cohere_rerank_documents():
    answer = rerank("cohere", URL, return_documents=True)
    return [result["document"]["text"] for result in answer.results]


@call
async def asynchronous():
    answer = await litellm.aembedding(f"openai/{model}", input=TEXTS, api_base=f"{URL}/v1", api_key=KEY)
    return vectors_of(answer)


@call
def unknown_model():
    embedding("openai", f"{URL}/v1", name="nobody")


@call
def too_many():
    embedding("openai", f"{URL}/v1", input=["a"] * CASE["too_many"])


@call
def wrong_key():
    embedding("openai", f"{URL}/v1", api_key="wrong")


told("litellm")
