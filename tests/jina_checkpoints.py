"""Checkpoints of Jina's own code for XLM-RoBERTa with random weights, in the layouts in which they are published."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from checkpoints import SIZES, change_json, save_tokenizer, write_json
from references.modeling_jina_flash import JinaXLMRoberta
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

TASKS = ("retrieval.query", "retrieval.passage", "separation", "classification", "text-matching")
QUERY, PASSAGE = "query machine learning: ", "the new document: "
INSTRUCTIONS = {**dict.fromkeys(TASKS, ""), TASKS[0]: QUERY, TASKS[1]: PASSAGE}
V5_PROMPTS = {"query": "query: ", "document": "the new "}
CODE = "jinaai/xlm-roberta-flash-implementation--"
EMBEDDER: dict[str, Any] = {
    **SIZES,
    "_name_or_path": "jinaai/jina-embeddings-v3",
    "architectures": ["XLMRobertaModel"],
    "auto_map": {
        "AutoConfig": f"{CODE}configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": f"{CODE}modeling_lora.XLMRobertaLoRA",
    },
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-5,
    "load_trained_adapters": True,
    "lora_adaptations": list(TASKS),
    "lora_alpha": 1,
    "lora_dropout_p": 0.0,
    "lora_main_params_trainable": False,
    "lora_rank": 2,
    "matryoshka_dimensions": [8, 24],
    "model_type": "xlm-roberta",
    "pad_token_id": 1,
    "position_embedding_type": "rotary",
    "rotary_emb_base": 20000.0,
    "task_instructions": INSTRUCTIONS,
    "torch_dtype": "bfloat16",
    "truncate_dim": None,
    "type_vocab_size": 1,
    "use_flash_attn": True,
}
ABSOLUTE: dict[str, Any] = {"position_embedding_type": "absolute", "lora_adaptations": None, "task_instructions": None}


def random_model(settings: dict[str, Any], seed: int = 0) -> JinaXLMRoberta:
    torch.manual_seed(seed)
    model = JinaXLMRoberta(settings)
    model.eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or "emb_ln" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
            elif "lora" not in name:
                parameter.normal_(0.0, 0.25)
    return model


def save(directory: Path, seed: int = 0, *, tensors: dict[str, torch.Tensor] | None = None, **changes: Any) -> Path:
    """A plain directory: config.json, weights in bfloat16 and tokenizer; keys changed to "absent" are left out."""
    directory.mkdir(parents=True, exist_ok=True)
    settings = {key: value for key, value in {**EMBEDDER, **changes}.items() if value != "absent"}
    state = {**random_model(settings, seed).state_dict(), **(tensors or {})}
    halves = {name: tensor.to(torch.bfloat16).contiguous() for name, tensor in state.items()}
    save_file(halves, directory / "model.safetensors", {"format": "pt"})
    write_json(directory / "config.json", settings)
    save_tokenizer(directory, "xlm-roberta")
    return directory


def save_embedder(directory: Path, seed: int = 0, **changes: Any) -> Path:
    """As jina-embeddings-v3 is published."""
    save(directory, seed, **changes)
    kinds = (
        ("custom_st.Transformer", ""),
        ("sentence_transformers.models.Pooling", "1_Pooling"),
        ("sentence_transformers.models.Normalize", "2_Normalize"),
    )
    modules = [{"idx": k, "name": str(k), "path": path, "type": kind} for k, (kind, path) in enumerate(kinds)]
    write_json(directory / "modules.json", [{**modules[0], "kwargs": ["task"]}, *modules[1:]])
    pooling = {"word_embedding_dimension": SIZES["hidden_size"], "pooling_mode_mean_tokens": True}
    write_json(directory / "1_Pooling" / "config.json", pooling)
    said = {"prompts": INSTRUCTIONS, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    write_json(directory / "config_sentence_transformers.json", said)
    (directory / "custom_st.py").write_text("raise SystemExit('code of the checkpoint was run')\n", encoding="utf-8")
    return directory


def as_v5(checkpoint: Path, tasks: Sequence[str], *, encoder: bool = False) -> Path:
    """A Qwen3, or an encoder, with adapters in folders of `adapters`, as jina-embeddings-v5 is published."""
    own: dict[str, Any] = {"model_type": "jina_embeddings_v5", "architectures": ["JinaEmbeddingsV5Model"]}
    own["auto_map"] = {"AutoConfig": "configuration_jina_embeddings_v5.JinaEmbeddingsV5Config"}
    own["task_names"] = list(tasks)
    change_json(checkpoint / "config.json", **own, **({"is_decoder": False} if encoder else {}))
    module = {"idx": 0, "name": "0", "path": "", "type": "custom_st.Transformer", "kwargs": ["task", "truncate_dim"]}
    write_json(checkpoint / "modules.json", [module])
    said = {"prompts": V5_PROMPTS, "default_prompt_name": "document"}
    write_json(checkpoint / "config_sentence_transformers.json", said)
    (checkpoint / "custom_st.py").write_text("raise SystemExit('code of the checkpoint was run')\n", encoding="utf-8")
    return checkpoint


def reference(directory: Path) -> JinaXLMRoberta:
    """The model of a directory, in float32."""
    model = JinaXLMRoberta(json.loads((directory / "config.json").read_text(encoding="utf-8")))
    model.eval()
    state = load_file(directory / "model.safetensors")
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in model.state_dict()})
    return model


def batch_of(
    directory: Path, texts: Sequence[str] | Sequence[tuple[str, str]], most: int = SIZES["max_position_embeddings"]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask (B, S), padded, cut at `most` tokens."""
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    tokenizer.enable_padding(pad_id=1)
    tokenizer.enable_truncation(most)
    made = tokenizer.encode_batch(list(texts))
    return torch.tensor([one.ids for one in made]), torch.tensor([one.attention_mask for one in made])


def wanted(directory: Path, texts: Sequence[str], task: str | None = None, prompt: str = "") -> npt.NDArray[Any]:
    """Vectors (n, H) of the reference, for a task."""
    model = reference(directory)
    model.set_task(task)
    with torch.no_grad():
        return np.asarray(model.vectors(*batch_of(directory, [prompt + text for text in texts])))
