"""infinity-client: embeddings, rerank, models."""

from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from infinity_client import AuthenticatedClient
from infinity_client.api.default import embeddings, health, models, rerank
from infinity_client.models import OpenAIEmbeddingInputText, RerankInput

client = AuthenticatedClient(base_url=URL, token=KEY)


def embed(texts, model=CASE["embedding"], client=client, **options):
    body = OpenAIEmbeddingInputText.from_dict({"input": texts, "model": model, **options})
    return embeddings.sync_detailed(client=client, body=body)


def vectors_of(answer):
    return [entry.embedding for entry in answer.parsed.data]


@call
def vectors():
    return vectors_of(embed(TEXTS))


@call
def ranked():
    body = RerankInput(query=QUERY, documents=TEXTS, model=CASE["reranker"])
    found = rerank.sync(client=client, body=body)
    return [[result.index, result.relevance_score] for result in found.results]


@call
def ranked_documents():
    body = RerankInput(query=QUERY, documents=TEXTS, model=CASE["reranker"], return_documents=True)
    return [result.document for result in rerank.sync(client=client, body=body).results]


@call
def without_a_model():
    # It then sends default/not-specified.
    return vectors_of(embeddings.sync_detailed(client=client, body=OpenAIEmbeddingInputText(input_=TEXTS)))


@call
def listed():
    return [entry.id for entry in models.sync(client=client).data]


@call
def healthy():
    return health.sync_detailed(client=client).status_code


@call
def unknown_model():
    return embed(TEXTS, "nobody").status_code


@call
def wrong_key():
    return embed(TEXTS, client=AuthenticatedClient(base_url=URL, token="wrong")).status_code


told("infinity-client")
