"""A checkpoint as a GGUF file, llama.cpp's format: keys, the WordPiece vocabulary, tensors in f32, f16, bf16 or q8_0.

Needs the gguf package, which names tensors and quantizes. llama.cpp's BERT computes GELU by its tanh form, takes token
type 0 only and lowercases texts; what is not like that in a checkpoint is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Config = Mapping[str, Any]

# Quantized or halved are the matrices of products and the word table; these are added as they are.
KEPT_IN_FLOAT = ("position_embd.weight", "token_types.weight")
SPECIAL = {  # llama.cpp puts bos in front of a text and sep behind it
    "bos": "[CLS]",
    "sep": "[SEP]",
    "unk": "[UNK]",
    "pad": "[PAD]",
    "mask": "[MASK]",
}
BEGINS_A_WORD = "\u2581"  # in front of a word's first piece, where WordPiece has ## in front of all others


def write(
    checkpoint: Path,
    tokenizer_file: Path,
    out: Path,
    *,
    precision: str,
    pooling: str,
    context_length: int | None = None,
) -> None:
    """Write the checkpoint's GGUF file.

    Args:
        checkpoint: transformers directory with config.json and model.safetensors.
        tokenizer_file: its tokenizer.json.
        out: file to write.
        precision: of matrices: f32, f16, bf16 or q8_0 (blocks of 32 int8 with an f16 scale). Vectors stay in float32.
        pooling: mean, cls or lasttoken.
        context_length: shorter than the checkpoint's, if given; the position table is cut.

    Raises:
        ValueError: the architecture, or something about it, is not llama.cpp's.
    """
    import gguf

    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise ValueError(f"llama.cpp, as it is driven here, has no {kind}; it has {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[kind]
    architecture.check(config)
    writer = gguf.GGUFWriter(out, architecture.name)
    length = min(config["max_position_embeddings"], context_length or config["max_position_embeddings"])
    writer.add_context_length(length)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_pooling_type(gguf.PoolingType[POOLINGS[pooling]])
    quantization = gguf.GGMLQuantizationType[precision.upper()]
    files = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    writer.add_file_type(gguf.LlamaFileType[files[precision]])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    architecture.add_keys(writer, config)
    dense = dense_layers(checkpoint)
    for name, values in dense:
        writer.add_dense_features_dims(name.removesuffix(".weight"), values.shape[1], values.shape[0])
    architecture.add_vocabulary(writer, config, json.loads(tokenizer_file.read_text(encoding="utf-8")))

    names = gguf.get_tensor_name_map(
        gguf.MODEL_ARCH[architecture.name.upper().replace("-", "_")], config["num_hidden_layers"]
    )
    for source, read in chain(read_safetensors(checkpoint / "model.safetensors"), dense):
        values = read + 1 if architecture.gain_from_one and source.endswith("norm.weight") else read
        if source.endswith(architecture.left_out):
            continue
        name = names.get_name(source, (".weight", ".bias")) or names.get_name(f"model.{source}", (".weight", ".bias"))
        if name is None:
            raise ValueError(f"llama.cpp's {architecture.name} has no tensor for {source}")
        cut = values[:length] if name == "position_embd.weight" else values
        if cut.ndim < 2 or name in KEPT_IN_FLOAT:
            writer.add_tensor(name, cut)
        else:
            writer.add_tensor(name, gguf.quants.quantize(cut, quantization), raw_dtype=quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read_safetensors(file: Path) -> Iterator[tuple[str, Array]]:
    """Names and values of a safetensors file, floats as contiguous float32; bfloat16 too, which numpy does not have."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
        first = stream.tell()
        header.pop("__metadata__", None)
        for name, about in header.items():
            begin, end = about["data_offsets"]
            stream.seek(first + begin)
            raw = stream.read(end - begin)
            if about["dtype"] == "BF16":
                values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
            else:
                values = np.frombuffer(raw, NUMPY[about["dtype"]])
                values = values.astype(np.float32) if about["dtype"] in ("F16", "F64") else values
            yield name, np.ascontiguousarray(values.reshape(about["shape"]))


def dense_layers(checkpoint: Path) -> list[tuple[str, Array]]:
    """Weights of the Dense modules behind the pooling, as EmbeddingGemma has them, by llama.cpp's names.

    Raises:
        ValueError: one has a bias or an activation, which llama.cpp leaves out.
    """
    found = []
    for number, folder in enumerate(sorted(checkpoint.glob("*_Dense")), 2):
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if config.get("bias", True) or not config["activation_function"].endswith(".Identity"):
            raise ValueError("llama.cpp's dense layers are without bias or activation")
        weights = dict(read_safetensors(folder / "model.safetensors"))
        found.append((f"dense_{number}.weight", weights["linear.weight"]))
    return found


def word_pieces(tokenizer: Config, size: int) -> tuple[list[str], list[int]]:
    """A WordPiece tokenizer.json's vocabulary as llama.cpp's `bert` tokenizer has it: `size` pieces, and their types.

    Raises:
        ValueError: it is another tokenizer, or one that keeps upper case or accents.
    """
    import gguf

    model, normalizer = tokenizer["model"], tokenizer.get("normalizer") or {}
    plain = normalizer.get("type") == "BertNormalizer" and normalizer["lowercase"]
    if model["type"] != "WordPiece" or not plain or normalizer.get("strip_accents") is False:  # None: as lowercase says
        raise ValueError("llama.cpp's `bert` tokenizer is WordPiece over lowercase text without accents")
    special = {row["id"] for row in tokenizer["added_tokens"] if row["special"]}
    special |= {model["vocab"][name] for name in SPECIAL.values() if name in model["vocab"]}
    pieces, kinds = [], []
    for number, (piece, place) in enumerate(sorted(model["vocab"].items(), key=lambda row: row[1])):
        if number != place:
            raise ValueError(f"the vocabulary has no id {number}")
        control = place in special
        shown = piece if control else piece.removeprefix("##") if piece.startswith("##") else BEGINS_A_WORD + piece
        pieces.append(shown)
        kinds.append(int(gguf.TokenType.CONTROL if control else gguf.TokenType.NORMAL))
    unused = range(len(pieces), size)  # rows of the word table without a piece
    return [*pieces, *(f"[PAD{number}]" for number in unused)], [*kinds, *(int(gguf.TokenType.UNUSED) for _ in unused)]


def _check_bert(config: Config) -> None:
    positions = config.get("position_embedding_type", "absolute")
    if config["hidden_act"] not in ("gelu", "gelu_new", "gelu_pytorch_tanh") or positions != "absolute":
        raise ValueError(f"llama.cpp's bert has GELU and absolute positions, not {config['hidden_act']}, {positions}")


def _bert_keys(writer: Any, config: Config) -> None:
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)


def _bert_vocabulary(writer: Any, config: Config, tokenizer: Config) -> None:
    pieces, kinds = word_pieces(tokenizer, config["vocab_size"])
    ids = tokenizer["model"]["vocab"]
    writer.add_token_type_count(config.get("type_vocab_size", 1))
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_types(kinds)
    for kind, name in SPECIAL.items():
        if name in ids:
            getattr(writer, f"add_{kind}_token_id")(ids[name])


def _check_qwen3(config: Config) -> None:
    if config["hidden_act"] != "silu" or config.get("use_sliding_window"):
        raise ValueError("llama.cpp's qwen3 has SiLU and attention to all that comes before")


def _decoder_keys(writer: Any, config: Config) -> None:
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    ropes = config.get("rope_parameters", {})
    theta = config.get("rope_theta") or ropes.get("full_attention", ropes)["rope_theta"]
    writer.add_rope_freq_base(theta)
    writer.add_vocab_size(config["vocab_size"])


def _check_gemma(config: Config) -> None:
    kinds = config["layer_types"]
    sixth = [number for number, kind in enumerate(kinds) if kind == "full_attention"] == list(range(5, len(kinds), 6))
    plain = config["hidden_activation"] == "gelu_pytorch_tanh" and config["query_pre_attn_scalar"] == config["head_dim"]
    if not (plain and sixth and config["use_bidirectional_attention"]):
        raise ValueError("llama.cpp's gemma-embedding attends in both directions, to all tokens in each sixth layer")


def _gemma_keys(writer: Any, config: Config) -> None:
    _decoder_keys(writer, config)
    writer.add_sliding_window(config["sliding_window"])
    local = config.get("rope_local_base_freq") or config["rope_parameters"]["sliding_attention"]["rope_theta"]
    writer.add_rope_freq_base_swa(local)


def _ids_only(writer: Any, config: Config, tokenizer: Config) -> None:
    """No vocabulary: whoever loads the file brings token ids."""
    writer.add_tokenizer_model("no_vocab")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How a `model_type` becomes one of llama.cpp's architectures."""

    name: str  # llama.cpp's
    check: Callable[[Config], None]  # raises ValueError where llama.cpp computes something else
    add_keys: Callable[[Any, Config], None]
    add_vocabulary: Callable[[Any, Config, Config], None]
    gain_from_one: bool = False  # the checkpoint stores the norms' gains less 1
    left_out: tuple[str, ...] = ()  # ends of the names of tensors that no embedding needs


ARCHITECTURES = {
    "bert": Architecture(
        name="bert",
        check=_check_bert,
        add_keys=_bert_keys,
        add_vocabulary=_bert_vocabulary,
        left_out=("position_ids", "pooler.dense.weight", "pooler.dense.bias"),
    ),
    "qwen3": Architecture(name="qwen3", check=_check_qwen3, add_keys=_decoder_keys, add_vocabulary=_ids_only),
    "gemma3_text": Architecture(
        name="gemma-embedding",
        check=_check_gemma,
        add_keys=_gemma_keys,
        add_vocabulary=_ids_only,
        gain_from_one=True,
    ),
}
POOLINGS: Mapping[str, str] = {"mean": "MEAN", "cls": "CLS", "lasttoken": "LAST"}
NUMPY: Mapping[str, str] = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "I64": "<i8", "I32": "<i4"}
