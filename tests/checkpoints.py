"""Small checkpoints with random weights, saved as users' are, with tokenizers of a few words."""

from __future__ import annotations

import functools
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch
import transformers
from references.modeling_jina import JinaBertModel
from references.modeling_lfm2_bidirectional import Lfm2BidirectionalModel
from references.modeling_llama_bidirectional import LlamaBidirectionalModel
from references.modeling_new import NewModel
from references.modeling_nomic_moe import NomicMoeModel
from references.modeling_pplx import PPLXQwen3Model
from references.modeling_qwen3_bidirectional import Qwen3BidirectionalModel
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from tolerances import close

from fastembed_rt import native

WORDS = [
    *"the a cat dog house river runs sleeps quickly under over tree red blue old new city light night day".split(),
    *"query passage machine learning vector text model : . , ! ? ( ) - 1 2 3 4 5 6 7 8 9 0".split(),
]
LETTERS = list("abcdefghijklmnopqrstuvwxyz")
VOCABULARY = 300

# What an export for CPUs in fp32 writes here, the default first.
OWN_FP32 = ["model.native.fp32.onnx"] if native.kernels() else []
FP32_FILES = [*OWN_FP32, "model.cpu.fp32.onnx", "model.onnx"]

# Architectures that stand for the others in quick tests.
QUICK_TYPES = ("albert", "bert", "deberta-v2", "gemma3_text", "modernbert", "mpnet", "qwen3", "t5")

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]

SIZES = {
    "hidden_size": 24,
    "num_attention_heads": 3,  # an odd number of heads, of 8 channels
    "num_hidden_layers": 3,
    "intermediate_size": 56,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 48,
}
IDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
GROUPED = {"num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 8}  # wider than the hidden size
GEMMA2 = {
    **SIZES,
    **IDS,
    **GROUPED,
    "sliding_window": 4,
    "sliding_window_pattern": 3,
    "global_head_dim": 12,
    "num_global_key_value_heads": 2,
    "hidden_size_per_layer_input": 10,
    "embedding_dim": 20,
}
LFM2 = {
    **SIZES,
    **IDS,
    "num_key_value_heads": 1,
    "layer_types": ["conv", "full_attention", "conv"],
    "block_multiple_of": 8,
}
T5 = {
    "d_model": 24,
    "d_kv": 6,  # other than 24 / 3
    "d_ff": 56,
    "num_layers": 3,
    "num_heads": 3,
    "vocab_size": VOCABULARY,
    "n_positions": 48,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**SIZES, "hidden_act": "gelu"},
    "roberta": {**SIZES, "max_position_embeddings": 50, "type_vocab_size": 1, "pad_token_id": 1},
    "xlm-roberta": {**SIZES, "max_position_embeddings": 50, "type_vocab_size": 1, "pad_token_id": 1},
    "camembert": {**SIZES, "max_position_embeddings": 50, "type_vocab_size": 1, "pad_token_id": 1},
    "distilbert": {
        "dim": 24,
        "n_heads": 3,
        "n_layers": 3,
        "hidden_dim": 56,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 48,
    },
    "mpnet": {**SIZES, "max_position_embeddings": 300, "pad_token_id": 1},
    "electra": {**SIZES, "embedding_size": 16},
    # Two groups of layers, the first run twice and the second once, both of two layers.
    "albert": {**SIZES, "embedding_size": 16, "num_hidden_groups": 2, "inner_group_num": 2},
    # Groups of their own for each layer: keys in other ones than queries and values.
    "squeezebert": {**SIZES, "embedding_size": 24, "q_groups": 3, "k_groups": 2, "v_groups": 3},
    "modernbert": {**SIZES, **IDS, "local_attention": 8, "cls_token_id": 2, "sep_token_id": 3},
    "qwen3": {**SIZES, **IDS, **GROUPED},
    # Vectors of another size than the states before the last layer.
    "qwen3_bidirectional": {**SIZES, **IDS, **GROUPED, "use_bidirectional_attention": True, "num_labels": 40},
    "bidirectional_pplx_qwen3": {**SIZES, **IDS, **GROUPED, "use_bidirectional_attention": True},
    "gemma": {**SIZES, **IDS, **GROUPED},
    # Windows of 4 tokens in the first and the last layer, and a cap that scores here do reach.
    "gemma2": {
        **SIZES,
        **IDS,
        **GROUPED,
        "query_pre_attn_scalar": 12,
        "sliding_window": 4,
        "attn_logit_softcapping": 0.5,
    },
    # Windows of 4 tokens to each side, and all of the text in the last layer.
    "gemma3_text": {
        **SIZES,
        **IDS,
        **GROUPED,
        "query_pre_attn_scalar": 12,
        "use_bidirectional_attention": True,
        "sliding_window": 8,
        "sliding_window_pattern": 3,
    },
    "llama": {**SIZES, **IDS, "num_key_value_heads": 1, "attention_bias": True, "mlp_bias": True},
    "llama_bidirec": {**SIZES, **IDS, "num_key_value_heads": 3},
    "mistral": {**SIZES, **IDS, **GROUPED, "sliding_window": 4},
    # As NVIDIA's embedders have it: all of a text is seen.
    "ministral3": {
        **SIZES,
        **IDS,
        **GROUPED,
        "is_causal": False,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 2.0,
            "original_max_position_embeddings": 600,
            "mscale_all_dim": 1.0,
            "mscale": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    },
    # A convolution at both ends, and a width that is none of config.json's.
    "lfm2": LFM2,
    "lfm2_bidirectional": LFM2,
    "eurobert": {**SIZES, **IDS, "rope_parameters": {"rope_type": "default", "rope_theta": 250_000.0}},
    # A window of 4 tokens to each side, and all of the text in the last layer.
    "ultrabert": {**SIZES, **IDS, "sliding_window": 4},
    # Heads of another width where a layer sees the whole text.
    "embedding_gemma2_text": GEMMA2,
    "clip_text_model": {**SIZES, **IDS},
    "data2vec-text": {**SIZES, "max_position_embeddings": 50, "type_vocab_size": 1, "pad_token_id": 1},
    # Windows of 2, 8 and 4 tokens to each side.
    "longformer": {
        **SIZES,
        "max_position_embeddings": 50,
        "type_vocab_size": 1,
        "pad_token_id": 1,
        "attention_window": [4, 16, 8],
    },
    "ernie": {**SIZES, "use_task_id": True},
    "qwen2": {**SIZES, **IDS, "num_key_value_heads": 1},
    "t5": {**T5, "feed_forward_proj": "gated-gelu"},
    "mt5": T5,
    "nomic_bert": {**SIZES, "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}},
    # Experts in the second and the last layer.
    "nomic_bert_moe": {
        "n_embd": 24,
        "n_head": 3,
        "n_layer": 4,
        "n_inner": 56,
        "n_positions": 48,
        "vocab_size": VOCABULARY,
        "type_vocab_size": 1,
        "num_experts": 5,
        "moe_top_k": 2,
        "pad_token_id": 0,
    },
    "gte": {**SIZES, "pad_token_id": 0, "rope_parameters": {"rope_type": "default", "rope_theta": 20_000.0}},
    "new": {
        **SIZES,
        "pad_token_id": 0,
        "type_vocab_size": 0,
        "rope_theta": 500.0,
        "rope_scaling": {"type": "ntk", "factor": 2.0},
    },
    "jina_bert": {**SIZES, "pad_token_id": 0},
    "jina_embeddings_v3": {**SIZES, "pad_token_id": 0, "type_vocab_size": 1},
    "deberta": {**SIZES, "pad_token_id": 0, "relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
    # As version 3 has it: distances from 4 on in buckets, shared projections, normalized rows, no other positions.
    "deberta-v2": {
        **SIZES,
        "pad_token_id": 0,
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 8,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
    },
}
# What AutoModel gives a decoder too; sentence-transformers takes the encoder.
ENCODERS: dict[str, Any] = {"t5": transformers.T5EncoderModel, "mt5": transformers.MT5EncoderModel}
# What transformers has no class of; written into checkpoints as code of their own, as those on the hub have it.
OWN_CODE: dict[str, Any] = {
    "new": NewModel,
    "jina_bert": JinaBertModel,
    "nomic_bert_moe": NomicMoeModel,
    "llama_bidirec": LlamaBidirectionalModel,
    "lfm2_bidirectional": Lfm2BidirectionalModel,
    "qwen3_bidirectional": Qwen3BidirectionalModel,
    "bidirectional_pplx_qwen3": PPLXQwen3Model,
}
for own in OWN_CODE.values():
    own.config_class.register_for_auto_class()
    own.register_for_auto_class("AutoModel")


Save = TypeVar("Save", bound=Callable[..., Path])
# What `saved_once` copies, until the process ends.
TEMPLATES = tempfile.TemporaryDirectory(prefix="fastembed-rt-checkpoints-")
numbers = itertools.count()


def template() -> Path:
    """A place of its own for one directory."""
    return Path(TEMPLATES.name) / str(next(numbers))


def written_out(value: object) -> bool:
    """Whether repr says all of a value: of many objects it gives an address, which others have after them."""
    if isinstance(value, dict):
        return all(written_out(part) for pair in value.items() for part in pair)
    if isinstance(value, (tuple, list)):
        return all(written_out(part) for part in value)
    return value is None or isinstance(value, (str, int, float))


def saved_once(save: Save) -> Save:
    """Of the same arguments the same files: made for the first who asks, and copied for all, who may change theirs.

    `save` takes a directory first, which it names in no file. torch's generator is left where `save` leaves it.
    """
    made: dict[str, tuple[Path, torch.Tensor]] = {}

    @functools.wraps(save)
    def copied(directory: Path, *args: Any, **options: Any) -> Path:
        if not written_out([args, options]):
            return save(directory, *args, **options)
        key = repr((args, sorted(options.items())))
        if key not in made:
            made[key] = save(template(), *args, **options), torch.get_rng_state()
        source, state = made[key]
        shutil.copytree(source, directory, dirs_exist_ok=True, copy_function=shutil.copyfile)
        torch.set_rng_state(state)
        return directory

    return cast(Save, copied)


def random_model(model_type: str, seed: int = 0, **changes: Any) -> Any:
    """A transformers model with random weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    settings = {**CONFIGS[model_type], **changes}
    if own := OWN_CODE.get(model_type):
        model = own(own.config_class(**settings))
    else:
        config = transformers.AutoConfig.for_model(model_type, **settings)
        encoder = ENCODERS.get(model_type)
        model = encoder(config) if encoder else transformers.AutoModel.from_config(config)
    model = model.eval().float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower() or "_ln" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
                if model_type == "embedding_gemma2_text" and name.endswith("q_norm.weight"):
                    parameter.mul_(len(parameter) ** -0.5)  # what scales its scores, by 1, has to be learned
            elif ".router." in name:
                parameter.normal_(0.0, 0.5)  # a rounding that turns a choice turns one of a small share
            else:
                parameter.normal_(0.0, 0.25)
        for name, buffer in model.named_buffers():
            if name.endswith("layer_scalar"):
                buffer.fill_(0.7)
    return model


def save_tokenizer(directory: Path, model_type: str) -> None:
    """A word-level WordPiece tokenizer with the family's special tokens."""
    roberta = model_type in ("roberta", "xlm-roberta", "camembert", "mpnet", "data2vec-text", "longformer")
    special = ROBERTA_SPECIAL if roberta else BERT_SPECIAL
    pieces = [*special, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    unknown, first, last = (special[3], special[0], special[2]) if roberta else (special[1], special[2], special[3])
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=200))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, vocabulary[first]), (last, vocabulary[last])]
    )
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"cls_token": first, "sep_token": last, "unk_token": unknown, "mask_token": special[4]}
    names["pad_token"] = special[1] if roberta else special[0]
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 10**30, **names},
    )


def trusting(model_type: str) -> dict[str, Any]:
    """Arguments with which sentence-transformers' Transformer runs code of a checkpoint's own, where it needs to."""
    kinds = ("model_kwargs", "config_kwargs", "processor_kwargs") if model_type in OWN_CODE else ()
    return {kind: {"trust_remote_code": True} for kind in kinds}


def write_json(path: Path, body: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(body), encoding="utf-8")


@saved_once
def save_transformers(directory: Path, model_type: str = "bert", *, seed: int = 0, **changes: Any) -> Path:
    """A plain transformers directory."""
    directory.mkdir(parents=True, exist_ok=True)
    random_model(model_type, seed, **changes).save_pretrained(directory)
    save_tokenizer(directory, model_type)
    return directory


@functools.lru_cache(maxsize=64)
def saved_again(model_type: str, max_seq_length: int | None, seed: int, changes: str) -> Any:
    """A plain checkpoint in the module of sentence-transformers that saves it again; `changes` in JSON."""
    from st_modules import Transformer

    plain = save_transformers(template(), model_type, seed=seed, **json.loads(changes))
    return Transformer(str(plain), max_seq_length=max_seq_length, **trusting(model_type))


def spread_weights(model: Any) -> None:
    """Random weights, large enough that texts differ by them."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name.lower():
                parameter.add_(torch.randn_like(parameter) * 0.1)
            else:
                parameter.normal_(0.0, 0.25)


@saved_once
def save_sentence_transformers(
    directory: Path,
    model_type: str = "bert",
    *,
    pooling: str | tuple[str, ...] = "mean",
    include_prompt: bool = True,
    dense: int | None = None,
    normalize: bool = True,
    max_seq_length: int | None = None,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    seed: int = 0,
    card: bool = False,
    **changes: Any,
) -> Path:
    """A sentence-transformers directory, saved by sentence-transformers; a card takes as long as the rest."""
    from sentence_transformers import SentenceTransformer
    from st_modules import Dense, Normalize, Pooling

    transformer = saved_again(model_type, max_seq_length, seed, json.dumps(changes))
    width = transformer.get_embedding_dimension()
    modules: list[Any] = [transformer, Pooling(width, pooling_mode=pooling, include_prompt=include_prompt)]
    width *= 1 if isinstance(pooling, str) else len(pooling)
    if dense is not None:
        torch.manual_seed(seed + 1)
        modules.append(Dense(width, dense, activation_function=torch.nn.Tanh()))
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(modules=modules, device="cpu", prompts=prompts, default_prompt_name=default_prompt_name)
    model.save_pretrained(str(directory), create_model_card=card)
    return directory


# Small models: threads would only wait for each other.
torch.set_num_threads(1)

# Lengths from none to beyond every limit, cased, with characters outside the vocabulary.
TEXTS = [
    "",
    "a",
    "The Cat sleeps.",
    "a dog runs quickly under the old tree!",
    "ÉTÉ à la rivière, 2 cats (red) - 東京 🙂",
    "new city light: 1 2 3 4 5 6 7 8 9 0 " * 9,
]
PROMPTS = {"query": "query: ", "passage": "the new red "}


def save_with_heads(
    directory: Path, *heads: Any, pooling: str | tuple[str, ...] = "mean", include_prompt: bool = True
) -> Path:
    """A BERT checkpoint with these sentence-transformers modules behind its pooling."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    transformer = Transformer(str(save_transformers(directory.with_name(directory.name + "-plain"))))
    pool = Pooling(transformer.get_embedding_dimension(), pooling_mode=pooling, include_prompt=include_prompt)
    SentenceTransformer(modules=[transformer, pool, *heads], device="cpu").save_pretrained(
        str(directory), create_model_card=False
    )
    return directory


def change_json(path: Path, *remove: str, **changes: Any) -> None:
    """Change some keys of a JSON object in its file, and take others out."""
    body = {**json.loads(path.read_text(encoding="utf-8")), **changes}
    write_json(path, {key: value for key, value in body.items() if key not in remove})


def enlarge_tokenizer(directory: Path) -> None:
    """Let a tokenizer have more tokens than its model knows: word250 is one of them."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.add_tokens([f"word{index}" for index in range(VOCABULARY)])
    tokenizer.save(str(directory / "tokenizer.json"))


def change_tensors(directory: Path, change: Callable[[dict[str, npt.NDArray[Any]]], object]) -> None:
    """Let `change` alter the tensors of a model.safetensors, by name."""
    file = directory / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def reference_vectors(directory: Path, texts: list[str] = TEXTS, **options: Any) -> npt.NDArray[np.float32]:
    """What sentence-transformers makes of the texts."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(directory), device="cpu", local_files_only=True, trust_remote_code=True)
    vectors: npt.NDArray[np.float32] = model.encode(texts, **options)
    return vectors


def exported_vectors(
    checkpoint: Path, output: Path, texts: list[str] = TEXTS, prompt_name: str | None = None, **options: Any
) -> npt.NDArray[np.float32]:
    """What the export of a checkpoint makes of the texts; `options` are ExportOptions."""
    from fastembed_rt import EmbeddingModel
    from fastembed_rt_export.pipeline import ExportOptions, export

    export(str(checkpoint), ExportOptions(output=output, verify=False, **options))
    with EmbeddingModel(output) as model:
        vectors: npt.NDArray[np.float32] = model.encode(texts, prompt_name=prompt_name)
    return vectors


def assert_vectors_agree(checkpoint: Path, output: Path, texts: list[str] = TEXTS, **options: Any) -> None:
    """The export's vectors are those of sentence-transformers."""
    wanted = reference_vectors(checkpoint, texts)
    close(exported_vectors(checkpoint, output, texts, **options), wanted)
