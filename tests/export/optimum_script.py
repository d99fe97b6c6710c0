"""Run by test_optimum.py in an environment with optimum: saves random checkpoints and exports them.

optimum_script.py export DIRECTORY MODEL_TYPE PRECISIONS [OPTIONS]   by command; the last line is the manifest
optimum_script.py survey DIRECTORY [MODEL_TYPE...]                   each; the last line says what came of each
optimum_script.py padding DIRECTORY MODEL_TYPE                       vectors of texts alone and in a batch, as numbers
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Container
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from checkpoints import SIZES, save_tokenizer
from sentence_transformers import SentenceTransformer
from st_modules import Dense, Normalize, Pooling, Transformer
from tokenizers import Tokenizer, processors

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.errors import FastembedRtError
from fastembed_rt.manifest import Manifest
from fastembed_rt_export.pipeline import ExportOptions, export

WIDTH = SIZES["hidden_size"]
BASE = {**SIZES, "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
AFTER_PAD = {"max_position_embeddings": 66, "pad_token_id": 1}  # rows 0 and 1 are no positions
GROUPED = {"num_key_value_heads": 3}
HEADS_OF_8 = {**GROUPED, "head_dim": 8}
TWO_STACKS = {
    "d_model": WIDTH,
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 3),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 56),
}
OF_T5 = {"d_model": WIDTH, "d_kv": 8, "d_ff": 56, "num_layers": 2, "num_heads": 3}
OF_GPT2 = {"n_embd": WIDTH, "n_head": 3, "n_layer": 3, "n_positions": 64, "n_inner": 56}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
# What each needs beside BASE, or instead of it; behind a colon, which of several.
CONFIGS: dict[str, dict[str, Any]] = {
    "arcee": GROUPED,
    "bart": {**TWO_STACKS, "decoder_start_token_id": 2},
    "bert": {},
    "bert-generation": {},
    "big_bird": {"attention_type": "original_full"},
    "big_bird:block_sparse": {"attention_type": "block_sparse", "block_size": 4, "num_random_blocks": 1},
    "bloom": {},
    "bros": {},
    "canine": {"num_hash_functions": 2, "num_hash_buckets": 16, "downsampling_rate": 2, "local_transformer_stride": 8},
    "clip_text_model": {},
    "codegen": {"n_embd": 32, "hidden_size": 32, "num_attention_heads": 4, "n_inner": 56, "rotary_dim": 4},
    "cohere": GROUPED,
    "convbert": {"embedding_size": WIDTH, "num_attention_heads": 4, "head_ratio": 2, "conv_kernel_size": 3},
    "ctrl": {**OF_GPT2, "dff": 56},
    "ernie_m": {},
    "esm": {"position_embedding_type": "rotary", "mask_token_id": 4},
    "falcon": {"num_kv_heads": 3},
    "flaubert": {},
    "fnet": {},
    "funnel": {
        "d_model": WIDTH,
        "d_head": 8,
        "n_head": 3,
        "d_inner": 56,
        "block_sizes": [1, 1],
        "block_repeats": [1, 1],
    },
    "gemma": HEADS_OF_8,
    "gemma2": HEADS_OF_8,
    "glm": HEADS_OF_8,
    "gpt2": OF_GPT2,
    "gpt_bigcode": OF_GPT2,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2, "num_heads": 3, "window_size": 8},
    "gpt_neox": {},
    "gpt_oss": {**HEADS_OF_8, **EXPERTS, "num_local_experts": 4, "sliding_window": 8},
    "gptj": {**OF_GPT2, "rotary_dim": 4},
    "granite": GROUPED,
    "helium": HEADS_OF_8,
    "ibert": AFTER_PAD,
    "layoutlm": {"max_2d_position_embeddings": 64},
    "led": {**TWO_STACKS, "attention_window": [4, 8], "max_encoder_position_embeddings": 64},
    "lilt": {"max_2d_position_embeddings": 64, "num_attention_heads": 2},
    "llama": GROUPED,
    "longformer": {**AFTER_PAD, "attention_window": [4, 8, 16]},
    "longt5": {**OF_T5, "local_radius": 3},
    "luke": {**AFTER_PAD, "entity_vocab_size": 10, "entity_emb_size": 8},
    "m2m_100": TWO_STACKS,
    "mamba": {"state_size": 4},
    "marian": TWO_STACKS,
    "mega": {},
    "megatron-bert": {},
    "mistral": GROUPED,
    "mobilebert": {"embedding_size": WIDTH, "intra_bottleneck_size": WIDTH, "true_hidden_size": WIDTH},
    "mpt": {"d_model": WIDTH, "n_heads": 3, "n_layers": 3, "max_seq_len": 64},
    "mra": {"block_per_row": 1},
    "mt5": OF_T5,
    "nemotron": HEADS_OF_8,
    "nezha": {},
    "nystromformer": {"num_landmarks": 64, "segment_means_seq_len": 64, "conv_kernel_size": 5},
    "nystromformer:means": {"num_landmarks": 4, "segment_means_seq_len": 16, "conv_kernel_size": 5},
    "olmo": GROUPED,
    "olmo2": GROUPED,
    "openai-gpt": OF_GPT2,
    "opt": {"ffn_dim": 56, "word_embed_proj_dim": WIDTH},
    "pegasus": TWO_STACKS,
    "phi": GROUPED,
    "phi3": GROUPED,
    "prophetnet": {"num_encoder_layers": 2, "num_decoder_layers": 2, "num_encoder_attention_heads": 3},
    "qwen3_moe": {**HEADS_OF_8, **EXPERTS, "num_experts": 4},
    "reformer": {
        "axial_pos_shape": [8, 8],
        "axial_pos_embds_dim": [8, 16],
        "attention_head_size": 8,
        "lsh_attn_chunk_length": 8,
        "local_attn_chunk_length": 8,
        "feed_forward_size": 56,
        "is_decoder": False,
        "num_buckets": 4,
    },
    "rembert": {"input_embedding_size": 16, "output_embedding_size": 16},
    "roberta-prelayernorm": AFTER_PAD,
    "roc_bert": {},
    "roformer": {"embedding_size": WIDTH},
    "rwkv": {"attention_hidden_size": WIDTH},
    "smollm3": GROUPED,
    "splinter": {},
    "squeezebert": {"embedding_size": WIDTH, **dict.fromkeys(("q_groups", "k_groups", "v_groups"), 3)},
    "stablelm": GROUPED,
    "starcoder2": GROUPED,
    "switch_transformers": {**OF_T5, "num_experts": 2},
    "tapas": {},
    "umt5": OF_T5,
    "xlm": {},
    "xlm-roberta-xl": AFTER_PAD,
    "xlnet": {"d_model": WIDTH, "n_layer": 3, "n_head": 3, "d_inner": 56, "d_head": 8},
    "xmod": {**AFTER_PAD, "languages": ["en_XX"], "default_language": "en_XX"},
    "yoso": {},
}
REFUSED_SETTINGS = {  # of BASE, by classes that raise when they are set
    "funnel": ("num_hidden_layers",),
    "gpt_neo": ("num_hidden_layers", "num_attention_heads"),
    "led": ("num_hidden_layers",),
    "prophetnet": ("num_hidden_layers",),
    "xlnet": ("max_position_embeddings",),
}
ENCODERS = {
    "longt5": transformers.LongT5EncoderModel,
    "mt5": transformers.MT5EncoderModel,
    "switch_transformers": transformers.SwitchTransformersEncoderModel,
    "umt5": transformers.UMT5EncoderModel,
}
TEMPLATES = {"xlnet": "$A:0 [SEP]:0 [CLS]:2"}  # special tokens around a text, with types that are not all 0
TEXTS = [" ".join(["a red dog runs over the old city under new light"] * times)[:length] for times, length in
         [(1, 1), (1, 9), (1, 20), (1, 48), (2, 70), (3, 130), (4, 190)]]  # fmt: skip


def save(work: Path, name: str, *, dense: bool = True) -> Path:
    """A sentence-transformers directory, with a Dense head or without."""
    torch.manual_seed(0)
    model_type = name.partition(":")[0]
    base = {key: value for key, value in BASE.items() if key not in REFUSED_SETTINGS.get(model_type, ())}
    config = transformers.AutoConfig.for_model(model_type, **{**base, **CONFIGS[name]})
    config.architectures = ["FunnelModel"] if model_type == "funnel" else None
    kind = ENCODERS.get(model_type)
    model = (kind(config) if kind else transformers.AutoModel.from_config(config)).eval().float()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "norm" not in key.lower() and "_ln" not in key:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(work / "plain")
    save_tokenizer(work / "plain", "roberta" if config.pad_token_id == 1 else "bert")
    _name_inputs(work / "plain" / "tokenizer_config.json", inspect.signature(model.forward).parameters)
    if model_type in TEMPLATES:
        _surround(work / "plain" / "tokenizer.json", TEMPLATES[model_type])
    transformer = Transformer(str(work / "plain"), max_seq_length=48)
    width = getattr(config, "hidden_size", WIDTH)
    modules = [transformer, Pooling(width, "mean"), *([Dense(width, 16)] if dense else []), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(work / "source"))
    return work / "source"


def _name_inputs(path: Path, taken: Container[str]) -> None:
    """The tokenizer makes token types for a model that takes them, as families' own tokenizers do."""
    settings = json.loads(path.read_text(encoding="utf-8"))
    types = ["token_type_ids"] if "token_type_ids" in taken else []
    settings["model_input_names"] = ["input_ids", "attention_mask", *types]
    path.write_text(json.dumps(settings), encoding="utf-8")


def _surround(path: Path, template: str) -> None:
    """Special tokens as a family has them."""
    tokenizer = Tokenizer.from_file(str(path))
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    tokenizer.save(str(path))


def by_command(work: Path, name: str, precision: str, *options: str) -> int:
    """Export with the command line; its exit code."""
    source, output = save(work, name), work / "made"
    failed = cli.main(
        ["export", str(source), "-o", str(output), "--precision", precision, "--min-cosine", "0.9", *options]
    )
    if not failed:
        print("\n" + json.dumps(json.loads((output / "manifest.json").read_text(encoding="utf-8"))))
    return failed


def survey(work: Path, *names: str) -> int:
    """Export each; what came of it: figures, or the sentence of one of our errors. Others are not caught."""
    found: dict[str, dict[str, Any]] = {}
    for name in names or CONFIGS:
        place = work / name.replace(":", "-")
        source = save(place, name, dense=False)
        try:
            options = ExportOptions(output=place / "made", exporter="optimum", precisions=("fp32", "int8"))
            made = export(str(source), options).manifest
        except FastembedRtError as error:
            found[name] = {"error": type(error).__name__, "text": str(error)}
        else:
            found[name] = {
                "max_abs_diff": made.parity["variants"]["model.onnx"]["max_abs_diff"],
                "max_positions": made.max_positions,
                "padding": made.padding,
                "notes": list(made.notes),
                "reference": made.parity["reference"],
                "int8": _int8(made),
            }
        print(name, found[name], file=sys.stderr, flush=True)
    print("\n" + json.dumps(found))
    return 0


def _int8(made: Manifest) -> dict[str, Any]:
    """Its distance from fp32 at default gates and the layers that stay float, or why it was left out."""
    if made.refused:
        return {"refused": made.refused[0].why}
    notes = made.variants[-1].notes
    figures = {key: notes["fidelity"][key] for key in ("mean_cosine", "min_cosine")}
    return {**figures, "groups": notes["int8_groups"], "float_groups": len(notes["float_groups"])}


def padding(work: Path, name: str) -> int:
    """How far vectors of texts in one batch are from those of the texts alone, in the reference and here."""
    source = save(work, name, dense=False)
    export(
        str(source),
        ExportOptions(output=work / "made", exporter="optimum", precisions=("fp32", "int8"), min_cosine=0.5),
    )
    reference = SentenceTransformer(str(source), device="cpu")
    alone = reference.encode(TEXTS, batch_size=1)
    found = {"reference": float(np.abs(reference.encode(TEXTS, batch_size=len(TEXTS)) - alone).max())}
    for precision in ("fp32", "int8"):
        with EmbeddingModel(work / "made", precision=precision) as model:
            together, one_by_one = model.encode(TEXTS), np.stack([model.encode([text])[0] for text in TEXTS])
            found[f"{precision} in a batch"] = float(np.abs(together - one_by_one).max())
            found[f"{precision} to the reference"] = float(np.abs(together - alone).max())
    print("\n" + json.dumps(found))
    return 0


if __name__ == "__main__":
    command, directory, *rest = sys.argv[1:]
    commands: dict[str, Callable[..., int]] = {"export": by_command, "survey": survey, "padding": padding}
    sys.exit(commands[command](Path(directory), *rest))
