"""A server of the Model Context Protocol: embed, similarity, rerank and search over one folder, as tools for LLMs."""
