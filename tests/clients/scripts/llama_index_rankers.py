"""LlamaIndex's rerankers of TEI and of Jina."""

from calls import CASE, KEY, QUERY, TEXTS, URL, call, told
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference


def ranked(ranker):
    nodes = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
    return [[TEXTS.index(found.text), found.score] for found in ranker.postprocess_nodes(nodes, query_str=QUERY)]


@call
def tei():
    return ranked(TextEmbeddingInference(base_url=URL, top_n=2, auth_token=f"Bearer {KEY}", model_name=""))


@call
def jina():
    return ranked(JinaRerank(api_key=KEY, model=CASE["reranker"], base_url=f"{URL}/v1", top_n=2))


@call
def unknown_model():
    ranked(JinaRerank(api_key=KEY, model="nobody", base_url=f"{URL}/v1"))


told("llama-index-postprocessor-tei-rerank")
