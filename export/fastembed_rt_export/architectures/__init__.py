"""The architectures built from a checkpoint's tensors: one file a family, one row a model_type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from . import (
    albert,
    bert,
    clip,
    deberta,
    distilbert,
    electra,
    embedding_gemma2,
    gemma,
    gemma3,
    gte,
    jina_bert,
    jina_v3,
    lfm2,
    llama,
    longformer,
    modernbert,
    mpnet,
    nomic_bert,
    qwen,
    rotary_bert,
    squeezebert,
    t5,
)
from .blocks import Config
from .renamed import Renames


@dataclass(frozen=True)
class Architecture:
    """How to build one model_type."""

    encoder: Callable[[Ops, Config, Tensors], Value]
    positions: Callable[[Config], int]  # longest text in tokens
    prefix: str  # of the tensors when the encoder was saved inside a task model
    heads: tuple[str, ...] = ()  # tensors beside the encoder that sentence embeddings do not use
    names: Mapping[str, str] = field(default_factory=dict)  # keys of config.json that others call hidden_size and so on
    title: str = ""  # what its paper calls it
    examples: tuple[str, ...] = ()  # checkpoints on the hub
    traced: bool = False  # made by a tracer, which took the tensors it needed itself
    own_code: bool = False  # transformers has no class for it: what is built is code that its checkpoints bring
    taken_over: bool = False  # transformers' class is that code, which older checkpoints still name
    settings: Mapping[str, Any] = field(default_factory=dict)  # what config.json calls by other names or not at all
    padding_changes: Callable[[], str | None] = lambda: None  # a note where padding changes a text's states
    notes: tuple[str, ...] = ()  # what a reader should know
    read: Callable[[Config], Config] | None = None  # what config() goes by, where config.json has it in another place
    states: str = "hidden_size"  # key of the config: numbers of a token's state
    renames: Renames | None = None  # from the checkpoints' names to those that transformers 5 and builders know

    def config(self, given: Config) -> Config:
        """config.json under the names that most families use."""
        given = given if self.read is None else self.read(given)
        renamed = {new: given[old] for old, new in self.names.items() if given.get(old) is not None}
        return {**renamed, **given, **self.settings}


_MASKED_LM = ("pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.", "embeddings.position_ids")
_DEBERTA = (*_MASKED_LM, "lm_predictions.", "mask_predictions.", "embeddings.position_embeddings.")
_CAUSAL_LM = ("lm_head.", "score.")
ARCHITECTURES = {
    "bert": Architecture(
        bert.bert,
        bert.bert_positions,
        "bert.",
        _MASKED_LM,
        title="BERT",
        examples=("sentence-transformers/all-MiniLM-L6-v2", "BAAI/bge-base-en-v1.5", "intfloat/e5-base-v2"),
    ),
    "roberta": Architecture(
        bert.roberta,
        bert.roberta_positions,
        "roberta.",
        _MASKED_LM,
        title="RoBERTa",
        examples=("sentence-transformers/all-distilroberta-v1", "bkai-foundation-models/vietnamese-bi-encoder"),
    ),
    "xlm-roberta": Architecture(
        bert.roberta,
        bert.roberta_positions,
        "roberta.",
        _MASKED_LM,
        title="XLM-RoBERTa",
        examples=("BAAI/bge-m3", "intfloat/multilingual-e5-base", "jinaai/jina-reranker-v2-base-multilingual"),
    ),
    "camembert": Architecture(
        bert.roberta,
        bert.roberta_positions,
        "roberta.",
        _MASKED_LM,
        title="CamemBERT",
        examples=("dangvantuan/sentence-camembert-base",),
    ),
    "data2vec-text": Architecture(
        bert.roberta,
        bert.roberta_positions,
        "data2vec_text.",
        _MASKED_LM,
        title="data2vec",
        examples=("facebook/data2vec-text-base",),
    ),
    "longformer": Architecture(
        longformer.longformer,
        bert.roberta_positions,
        "longformer.",
        _MASKED_LM,
        title="Longformer",
        examples=("allenai/longformer-base-4096",),
    ),
    "ernie": Architecture(
        bert.ernie, bert.bert_positions, "ernie.", _MASKED_LM, title="ERNIE", examples=("nghuyong/ernie-3.0-base-zh",)
    ),
    "distilbert": Architecture(
        distilbert.distilbert,
        bert.bert_positions,
        "distilbert.",
        (*_MASKED_LM, "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "pre_classifier."),
        distilbert.NAMES,
        title="DistilBERT",
        examples=("sentence-transformers/msmarco-distilbert-base-v4",),
    ),
    "mpnet": Architecture(
        mpnet.mpnet,
        mpnet.mpnet_positions,
        "mpnet.",
        _MASKED_LM,
        title="MPNet",
        examples=("sentence-transformers/all-mpnet-base-v2",),
    ),
    "electra": Architecture(
        electra.electra,
        bert.bert_positions,
        "electra.",
        (*_MASKED_LM, "discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
        title="ELECTRA",
        examples=("google/electra-base-discriminator",),
    ),
    "albert": Architecture(
        albert.albert,
        bert.bert_positions,
        "albert.",
        (*_MASKED_LM, "predictions.", "sop_classifier."),
        title="ALBERT",
        examples=("sentence-transformers/paraphrase-albert-small-v2",),
    ),
    "squeezebert": Architecture(
        squeezebert.squeezebert,
        bert.bert_positions,
        "transformer.",
        _MASKED_LM,
        title="SqueezeBERT",
        examples=("squeezebert/squeezebert-uncased",),
    ),
    "deberta": Architecture(
        deberta.deberta,
        bert.bert_positions,
        "deberta.",
        _DEBERTA,
        title="DeBERTa",
        examples=("microsoft/deberta-base",),
    ),
    "deberta-v2": Architecture(
        deberta.deberta_v2,
        bert.bert_positions,
        "deberta.",
        _DEBERTA,
        title="DeBERTa v2, v3",
        examples=("microsoft/deberta-v3-base",),
    ),
    "modernbert": Architecture(
        modernbert.modernbert,
        bert.bert_positions,
        "model.",
        (*_MASKED_LM, "head.", "decoder."),
        title="ModernBERT",
        examples=("nomic-ai/modernbert-embed-base", "Alibaba-NLP/gte-modernbert-base"),
    ),
    "nomic_bert": Architecture(
        nomic_bert.nomic_bert,
        nomic_bert.nomic_positions,
        "nomic_bert.",
        _MASKED_LM,
        nomic_bert.NAMES,
        title="NomicBERT",
        renames=rotary_bert.NOMIC,
        taken_over=True,
        examples=("nomic-ai/nomic-embed-text-v1.5",),
    ),
    "nomic_bert_moe": Architecture(
        nomic_bert.nomic_moe,
        nomic_bert.nomic_positions,
        "nomic_bert.",
        _MASKED_LM,
        nomic_bert.NAMES,
        title="NomicBERT with experts",
        renames=rotary_bert.NOMIC,
        own_code=True,
        examples=("nomic-ai/nomic-embed-text-v2-moe",),
    ),
    "gte": Architecture(
        gte.gte,
        bert.bert_positions,
        "gte.",
        _MASKED_LM,
        title="GTE, transformers' class",
        renames=rotary_bert.GTE_SAVED_AGAIN,
        taken_over=True,
        examples=("alibaba-nlp-community/gte-multilingual-base",),
    ),
    "new": Architecture(
        gte.gte,
        bert.bert_positions,
        "new.",
        _MASKED_LM,
        title="GTE, code on the hub",
        renames=rotary_bert.GTE,
        examples=("Alibaba-NLP/gte-base-en-v1.5", "Alibaba-NLP/gte-multilingual-base"),
        own_code=True,
    ),
    "jina_bert": Architecture(
        jina_bert.jina_bert,
        bert.bert_positions,
        "bert.",
        _MASKED_LM,
        title="JinaBERT v2",
        examples=("jinaai/jina-embeddings-v2-base-en", "jinaai/jina-embeddings-v2-base-code"),
        own_code=True,
    ),
    "jina_embeddings_v3": Architecture(
        jina_v3.jina_v3,
        bert.bert_positions,
        "roberta.",
        _MASKED_LM,
        title="Jina v3",
        renames=rotary_bert.JINA,
        examples=("jinaai/jina-embeddings-v3", "jinaai/jina-embeddings-v3-hf", "jinaai/jina-colbert-v2"),
    ),
    "t5": Architecture(
        t5.t5,
        t5.t5_positions,
        "",
        ("decoder.", "lm_head.", "encoder.embed_tokens."),
        t5.NAMES,
        title="T5",
        examples=("sentence-transformers/sentence-t5-base", "sentence-transformers/gtr-t5-base"),
    ),
    "mt5": Architecture(
        t5.t5,
        t5.t5_positions,
        "",
        ("decoder.", "lm_head.", "encoder.embed_tokens."),
        t5.NAMES,
        title="mT5",
        read=t5.read_mt5,
        settings={"scale_decoder_outputs": False},
        examples=("unicamp-dl/mt5-base-mmarco-v2",),
    ),
    "qwen2": Architecture(
        qwen.qwen2,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Qwen2",
        examples=("jinaai/jina-code-embeddings-0.5b",),
    ),
    "qwen3": Architecture(
        qwen.qwen3,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Qwen3",
        examples=("Qwen/Qwen3-Embedding-0.6B", "jinaai/jina-embeddings-v5-text-small"),
    ),
    "qwen3_bidirectional": Architecture(
        qwen.qwen3_bidirectional,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        settings={"is_causal": False},
        title="Qwen3, bidirectional",
        read=qwen.read_width,
        states=qwen.WIDTH,
        examples=("voyageai/voyage-4-nano",),
        own_code=True,
    ),
    qwen.PERPLEXITYS: Architecture(
        qwen.qwen3,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        settings={"is_causal": False},
        title="Qwen3, bidirectional, Perplexity's",
        read=qwen.read_perplexitys,
        examples=("perplexity-ai/pplx-embed-v1-0.6b", "perplexity-ai/pplx-embed-v1-4b"),
        own_code=True,
    ),
    "llama": Architecture(
        llama.llama,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Llama",
        examples=("castorini/repllama-v1-7b-lora-passage",),
    ),
    "llama_bidirec": Architecture(
        llama.llama,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        settings={"is_causal": False},
        title="Llama, bidirectional",
        examples=("nvidia/llama-nemotron-embed-1b-v2", "nvidia/llama-embed-nemotron-8b"),
        own_code=True,
    ),
    "mistral": Architecture(
        llama.mistral,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Mistral",
        examples=("intfloat/e5-mistral-7b-instruct", "Salesforce/SFR-Embedding-Mistral"),
    ),
    "ministral3": Architecture(
        llama.mistral,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Ministral 3",
        read=llama.read_ministral3,
        examples=("nvidia/Nemotron-3-Embed-1B-BF16", "nvidia/Nemotron-3-Embed-8B-BF16"),
    ),
    "lfm2": Architecture(
        lfm2.lfm2,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="LFM2",
        examples=("LiquidAI/LFM2-350M",),
    ),
    "lfm2_bidirectional": Architecture(
        lfm2.lfm2_bidirectional,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        settings={"is_causal": False},
        title="LFM2, bidirectional",
        examples=("LiquidAI/LFM2.5-Embedding-350M",),
        own_code=True,
    ),
    "eurobert": Architecture(
        llama.eurobert,
        bert.bert_positions,
        "model.",
        (*_CAUSAL_LM, "classifier.", "dense."),
        title="EuroBERT",
        taken_over=True,
        examples=("EuroBERT/EuroBERT-210m", "jinaai/jina-embeddings-v5-text-nano"),
    ),
    "ultrabert": Architecture(
        llama.ultrabert,
        bert.bert_positions,
        "ultrabert.",
        (*_CAUSAL_LM, "head.", "classifier."),
        title="UltraBERT",
        renames=llama.ULTRA_NAMES,
        taken_over=True,
        examples=("dmis-lab/UltraBERT-150M",),
    ),
    "gemma": Architecture(
        gemma.gemma,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Gemma",
        examples=("BAAI/bge-reranker-v2-gemma", "Jaume/gemma-2b-embeddings"),
    ),
    "gemma2": Architecture(
        gemma.gemma2,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Gemma 2",
        examples=("BAAI/bge-multilingual-gemma2",),
    ),
    "gemma3_text": Architecture(
        gemma3.gemma3,
        bert.bert_positions,
        "model.",
        _CAUSAL_LM,
        title="Gemma 3",
        examples=("google/embeddinggemma-300m",),
    ),
    "embedding_gemma2_text": Architecture(
        embedding_gemma2.embedding_gemma2,
        embedding_gemma2.positions,
        "language_model.",
        embedding_gemma2.BESIDE,
        title="EmbeddingGemma 2",
        read=embedding_gemma2.read_config,
        examples=("google/embeddinggemma-2",),
    ),
    clip.MODEL_TYPE: Architecture(
        clip.clip_text,
        bert.bert_positions,
        "text_model.",
        clip.BESIDE,
        title="CLIP's text model",
        read=clip.read_config,
        examples=("sentence-transformers/clip-ViT-B-32", "openai/clip-vit-base-patch32"),
    ),
}


# Code of a checkpoint's own may call itself by the name of what it was made from: model_type, key, value -> row.
_DISGUISED = {("bert", "position_embedding_type", "alibi"): "jina_bert"}

# Models that take more than texts -> the row of the text model inside.
AROUND = {"embedding_gemma2": "embedding_gemma2_text", clip.WHOLE: clip.MODEL_TYPE}


def row_name(config: Config) -> str:
    """Name of the row for a config.json: its model_type, unless that is another architecture's or around one."""
    model_type = AROUND.get(str(config["model_type"]), config["model_type"])
    if model_type == "nomic_bert" and nomic_bert.without_gates(config):
        return "nomic_bert_moe"
    if model_type == "lfm2" and lfm2.sees_both_ways(config):
        return "lfm2_bidirectional"
    if model_type == "qwen3" and qwen.sees_both_ways(config):
        return "qwen3_bidirectional"
    found = (row for (name, key, value), row in _DISGUISED.items() if model_type == name and config.get(key) == value)
    return next(found, str(model_type))


def architecture(config: Config, *, traceable: bool) -> Architecture:
    """Row for a config.json; `traceable`: whether a trace would do as well.

    Raises:
        UnsupportedCheckpointError: no builder; the message says which exist and what else can be done.
    """
    row = ARCHITECTURES.get(row_name(config))
    if row is None:
        advice = (
            "optimum can trace it: pip install 'fastembed-rt[optimum]' in an environment of its own and export again"
            if traceable
            else "what is asked for is built from weights alone, not traced"
        )
        known = ", ".join(sorted(ARCHITECTURES))
        raise UnsupportedCheckpointError(
            f"model_type {config['model_type']!r} has no builder (there are: {known}); {advice}"
        )
    return row
