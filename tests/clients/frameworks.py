"""What is built around embeddings: agents, their memories, functions of stores; and what each call must give."""

from __future__ import annotations

from clients.checks import (
    KEYS,
    LONG,
    UNKNOWN,
    Raises,
    limit,
    one_vector,
    ranked,
    second_text,
    vectors,
)
from clients.running import Client

FIRST = vectors(count=1)
FRAMEWORKS = (
    Client(
        "mem0ai",
        "agents",
        "mem0_embedders.py",
        {
            **dict.fromkeys(("vectors_openai", "vectors_ollama", "vectors_lmstudio"), vectors()),
            "one": FIRST,
            "shorter": vectors("shorter"),
            "retrieved": second_text,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "pydantic-ai",
        "agents",
        "pydantic_ai_embedder.py",
        {
            "documents_openai": vectors(),
            "shorter": vectors("shorter"),
            **dict.fromkeys(("query_openai", "query_cohere", "query_voyage", "query_google"), vectors("queries")),
            **dict.fromkeys(("documents_cohere", "documents_voyage", "documents_google"), vectors("documents")),
            **dict.fromkeys(("too_long_cohere", "too_long_voyage"), Raises("ModelRequestRejectedError", 422, LONG)),
            "unknown_model": Raises("ModelNotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("ModelAuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "Agno",
        "agents",
        "agno_embedders.py",
        {
            **dict.fromkeys(("vectors_openai", "vectors_openai_together"), vectors()),
            **dict.fromkeys(("vectors_jina", "vectors_jina_together", "vectors_mistral", "vectors_ollama"), vectors()),
            "shorter": vectors("shorter"),
            **dict.fromkeys(("query_gemini", "query_cohere"), vectors("queries")),
            "document_voyage": vectors("documents"),
            "reranked": ranked(2),
            "late_chunking": Raises("EmbeddingError", 422),
            "unknown_model": Raises("EmbeddingError", 404, UNKNOWN),
            "wrong_key": Raises("EmbeddingError", 401, KEYS),
        },
    ),
    Client(
        "LightRAG",
        "agents",
        "lightrag_functions.py",
        {
            **dict.fromkeys(("vectors_openai", "vectors_ollama"), vectors()),
            "shorter": vectors("shorter"),
            **dict.fromkeys(("query_nvidia", "query_jina", "query_gemini"), vectors("queries")),
            **dict.fromkeys(("document_nvidia", "document_jina", "document_gemini"), vectors("documents")),
            "too_long_nvidia": Raises("UnprocessableEntityError", 422, LONG),
            "reranked_cohere": ranked(2),
            "reranked_jina": ranked(),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "Graphiti",
        "agents",
        "graphiti_embedders.py",
        {
            **dict.fromkeys(("vectors_openai", "vectors_voyage", "vectors_gemini"), vectors()),
            "one": FIRST,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "RedisVL",
        "agents",
        "redisvl_vectorizers.py",
        {
            **dict.fromkeys(("vectors_openai", "asynchronous"), vectors()),
            "shorter": vectors("shorter"),
            "query_voyage": vectors("queries"),
            "documents_cohere": vectors("documents"),
            **dict.fromkeys(("reranked_voyage", "reranked_cohere"), ranked(2)),
        },
    ),
    Client(
        "Semantic Kernel",
        "agents",
        "semantic_kernel_services.py",
        {
            **dict.fromkeys(("vectors_openai", "vectors_ollama"), vectors()),
            "shorter": vectors("shorter"),
            "query_nvidia": vectors("queries"),
            "unknown_model": Raises("ServiceResponseException", None, UNKNOWN),
            "wrong_key": Raises("ServiceResponseException", None, KEYS),
        },
    ),
    Client(
        "pymilvus",
        "pymilvus",
        "pymilvus_functions.py",
        {
            "vectors_openai": vectors(),
            "shorter": vectors("shorter"),
            "query_cohere": vectors("queries"),
            "documents_cohere": vectors("documents"),
            "reranked_voyage": ranked(2),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "Ragas",
        "ragas",
        "ragas_embeddings.py",
        {
            **dict.fromkeys(("vectors_openai", "asynchronous", "vectors_google", "vectors_litellm"), vectors()),
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
        },
    ),
    Client(
        "CrewAI",
        "crews",
        "crewai_embedders.py",
        {
            **dict.fromkeys(("vectors_openai", "vectors_ollama"), vectors()),
            "retrieved": second_text,
            "unknown_model": Raises("NotFoundError", 404, UNKNOWN),
            "wrong_key": Raises("AuthenticationError", 401, KEYS),
        },
    ),
    Client(
        "cognee",
        "crews",
        "cognee_engines.py",
        {
            **dict.fromkeys(("vectors_litellm", "vectors_openai", "vectors_ollama"), vectors()),
            "length_ollama": limit,
            "in_parts_ollama": one_vector,
        },
    ),
    Client(
        "Mastra (Node)",
        "node",
        "mastra_node.mjs",
        {
            "vectors": vectors(),
            "one": FIRST,
            "unknown_model": Raises("AI_APICallError", 404, UNKNOWN),
            "wrong_key": Raises("AI_APICallError", 401, KEYS),
        },
    ),
)
