"""GraphRAG for Neo4j: its embedders for OpenAI and Ollama."""

from calls import CASE, KEY, TEXTS, URL, call, told
from neo4j_graphrag.embeddings import OllamaEmbeddings, OpenAIEmbeddings

model = CASE["embedding"]


def openai(name=model, key=KEY):
    return OpenAIEmbeddings(model=name, base_url=f"{URL}/v1", api_key=key, max_retries=0)


@call
def vectors_openai():
    return [openai().embed_query(text) for text in TEXTS]


@call
def shorter():
    return [openai().embed_query(text, dimensions=CASE["dimensions"]) for text in TEXTS]


@call
def vectors_ollama():
    embedder = OllamaEmbeddings(model=model, host=URL, headers={"Authorization": f"Bearer {KEY}"})
    return [embedder.embed_query(text) for text in TEXTS]


@call
def unknown_model():
    openai("nobody").embed_query(TEXTS[0])


@call
def wrong_key():
    openai(key="wrong").embed_query(TEXTS[0])


told("neo4j-graphrag")
