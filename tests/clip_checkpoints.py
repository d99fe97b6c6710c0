"""CLIP checkpoints with random weights, laid out as on the hub: two towers, a tokenizer in vocab.json and merges.txt.

Of the published towers: settings of the text model inside config.json, eos_token_id 2 as OpenAI's say it, another id as
newer ones do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from checkpoints import saved_once, write_json
from tokenizers import pre_tokenizers

START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = ["t h", "th e</w>", "c a", "ca t</w>", "d o", "do g</w>", "e r</w>", "i n", "in g</w>"]
POSITIONS = 24
PREPROCESSOR = {
    "crop_size": 8,
    "do_center_crop": True,
    "do_normalize": True,
    "do_resize": True,
    "feature_extractor_type": "CLIPFeatureExtractor",
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "size": 8,
}


def vocabulary() -> dict[str, int]:
    """The bytes, inside words and at their end, the merges, and the two special tokens with the highest ids."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = [merge.replace(" ", "") for merge in MERGES]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *merged, START, END]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


END_ID = vocabulary()[END]


def save_tokenizer(directory: Path) -> None:
    """As the hub's CLIP checkpoints have it."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "vocab.json", vocabulary())
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    write_json(directory / "special_tokens_map.json", special)
    kind = {"tokenizer_class": "CLIPTokenizer", "model_max_length": POSITIONS, "do_lower_case": True}
    write_json(directory / "tokenizer_config.json", {**kind, **special, "add_prefix_space": False, "errors": "replace"})


def text_settings(**changes: Any) -> dict[str, Any]:
    """Of a small text model."""
    return {
        "hidden_size": 24,
        "num_attention_heads": 3,
        "num_hidden_layers": 3,
        "intermediate_size": 64,
        "vocab_size": len(vocabulary()),
        "max_position_embeddings": POSITIONS,
        "projection_dim": 20,
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        **changes,
    }


def random_weights(model: Any, seed: int = 0) -> Any:
    """Weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif parameter.ndim:
                parameter.normal_(0.0, 0.25)
    return model.eval()


@saved_once
def save_clip(directory: Path, *, images: bool = True, **changes: Any) -> Path:
    """A plain CLIPModel, both towers; `images`: with the settings of its image processor."""
    vision = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "image_size": 8,
        "patch_size": 4,
    }
    config = transformers.CLIPConfig(text_config=text_settings(**changes), vision_config=vision, projection_dim=20)
    random_weights(transformers.CLIPModel(config)).save_pretrained(directory)
    save_tokenizer(directory)
    if images:
        write_json(directory / "preprocessor_config.json", PREPROCESSOR)
    return directory


@saved_once
def save_projected(directory: Path, **changes: Any) -> Path:
    """A plain CLIPTextModelWithProjection."""
    config = transformers.CLIPTextConfig(**text_settings(**changes))
    random_weights(transformers.CLIPTextModelWithProjection(config)).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@saved_once
def save_clip_module(directory: Path, **changes: Any) -> Path:
    """As sentence-transformers/clip-ViT-B-32 is published: CLIPModel is the only module, in a folder of its own."""
    save_clip(directory / "0_CLIPModel", **changes)
    kind = "sentence_transformers.models.CLIPModel"
    write_json(directory / "modules.json", [{"idx": 0, "name": "0", "path": "0_CLIPModel", "type": kind}])
    write_json(directory / "config_sentence_transformers.json", {"__version__": {"sentence_transformers": "2.0.0"}})
    return directory


@saved_once
def save_clip_again(directory: Path, *heads: str, **changes: Any) -> Path:
    """As sentence-transformers saves it since 5.4: a Transformer whose own vectors of texts are taken."""
    save_clip(directory, **changes)
    config = {
        "transformer_task": "feature-extraction",
        "modality_config": {
            kind: {"method": f"get_{kind}_features", "method_output_name": "pooler_output"}
            for kind in ("text", "image")
        },
        "module_output_name": "sentence_embedding",
    }
    write_json(directory / "sentence_bert_config.json", config)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    ]
    modules += [
        {"idx": k, "name": str(k), "path": f"{k}_{head}", "type": f"sentence_transformers.models.{head}"}
        for k, head in enumerate(heads, start=1)
    ]
    write_json(directory / "modules.json", modules)
    return directory
