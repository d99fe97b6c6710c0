"""llama.cpp as a contender: the GGUF file of a checkpoint, how texts are batched, what it computes, and its server."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import TEXTS, change_json, reference_vectors, save_sentence_transformers, save_transformers
from safetensors import safe_open
from safetensors.numpy import load_file

from benchmarks.compare import environments
from benchmarks.compare.adapters import gguf_checkpoint
from benchmarks.compare.adapters.length_batches import batches
from benchmarks.compare.contenders import CONTENDERS
from benchmarks.compare.preparation import Preparation, sources
from benchmarks.errors import ContenderError
from benchmarks.load import llama_server
from benchmarks.precision import random_weights

SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 96}
SMALL_GEMMA = replace(
    random_weights.GEMMA,
    config={
        **random_weights.GEMMA.config,
        **{"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "vocab_size": 400},
        **{"head_dim": 32, "query_pre_attn_scalar": 32},
        **{"num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]},
    },
    dense=(96, 64),
)
# llama.cpp's names, as its loader asks for them.
ONCE = {
    "token_embd.weight": "embeddings.word_embeddings.weight",
    "position_embd.weight": "embeddings.position_embeddings.weight",
    "token_types.weight": "embeddings.token_type_embeddings.weight",
    "token_embd_norm.weight": "embeddings.LayerNorm.weight",
    "token_embd_norm.bias": "embeddings.LayerNorm.bias",
}
IN_A_LAYER = {
    "attn_q": "attention.self.query",
    "attn_k": "attention.self.key",
    "attn_v": "attention.self.value",
    "attn_output": "attention.output.dense",
    "attn_output_norm": "attention.output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "layer_output_norm": "output.LayerNorm",
}
Write = Callable[..., Any]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT whose rows are blocks of 32, as q8_0 wants them."""
    return save_sentence_transformers(tmp_path_factory.mktemp("gguf") / "bert", **SIZES)


@pytest.fixture
def write(checkpoint: Path, tmp_path: Path) -> Write:
    """Write a checkpoint and open what was written with the gguf package's reader."""
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")

    def written(precision: str = "f32", source: Path = checkpoint, **options: Any) -> Any:
        out = tmp_path / f"{precision}.gguf"  # the reader maps it: one file is not written twice
        options.setdefault("pooling", "mean")
        gguf_checkpoint.write(source, source / "tokenizer.json", out, precision=precision, **options)
        return gguf.GGUFReader(out)

    return written


def tensors(reader: Any) -> dict[str, npt.NDArray[np.float32]]:
    """The file's values by name, as floats."""
    import gguf

    return {row.name: np.array(gguf.quants.dequantize(row.data, row.tensor_type)) for row in reader.tensors}


def value(reader: Any, key: str) -> Any:
    return reader.get_field(key).contents()


def test_a_bert_has_llama_cpps_names_and_the_checkpoints_values(write: Write, checkpoint: Path) -> None:
    source = load_file(checkpoint / "model.safetensors")
    wanted = {name: source[ours] for name, ours in ONCE.items()}
    for layer in range(2):
        for name, ours in IN_A_LAYER.items():
            for part in ("weight", "bias"):
                wanted[f"blk.{layer}.{name}.{part}"] = source[f"encoder.layer.{layer}.{ours}.{part}"]
    found = tensors(write("f32"))
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_matrices_alone_are_rounded_and_no_more_than_the_format_rounds(write: Write, checkpoint: Path) -> None:
    exact = tensors(write("f32"))
    half, brain, eighth = write("f16"), write("bf16"), write("q8_0")
    rounded = {"F16": tensors(half), "BF16": tensors(brain), "Q8_0": tensors(eighth)}
    assert value(brain, "general.file_type") == 32
    for reader, kind in ((half, "F16"), (brain, "BF16"), (eighth, "Q8_0")):
        matrices = {row.name for row in reader.tensors if row.tensor_type.name == kind}
        assert matrices == {
            name for name, values in exact.items() if values.ndim == 2 and name[:8] not in ("position", "token_ty")
        }
        assert {row.tensor_type.name for row in reader.tensors if row.name not in matrices} == {"F32"}
    for name, values in exact.items():
        np.testing.assert_allclose(rounded["F16"][name], values, rtol=2**-11, atol=1e-7, err_msg=name)
        np.testing.assert_allclose(rounded["BF16"][name], values, rtol=2**-8, err_msg=name)
        if values.ndim == 2:
            blocks = values.reshape(-1, 32)
            # Half a step of a block's largest value by 127, and what rounding the step to f16 moves at most.
            bound = np.abs(blocks).max(1, keepdims=True) * (0.5 / 127 + 2**-11) * 1.001
            assert (np.abs(rounded["Q8_0"][name].reshape(-1, 32) - blocks) <= bound).all(), name


def test_keys_say_what_the_checkpoint_is(write: Write) -> None:
    reader = write("q8_0", pooling="cls", context_length=40)
    assert value(reader, "general.architecture") == "bert"
    assert value(reader, "general.file_type") == 7
    sizes = {"embedding_length": 64, "block_count": 2, "feed_forward_length": 96, "attention.head_count": 4}
    for key, size in {**sizes, "context_length": 40, "pooling_type": 2}.items():
        assert value(reader, f"bert.{key}") == size, key
    assert value(reader, "bert.attention.causal") is False
    assert value(reader, "bert.attention.layer_norm_epsilon") == pytest.approx(1e-12)
    assert tensors(reader)["position_embd.weight"].shape == (40, 64)  # no more than the context


def test_word_pieces_are_marked_where_a_word_begins(write: Write, checkpoint: Path) -> None:
    reader = write()
    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text())["model"]["vocab"]
    pieces, kinds = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.token_type")
    assert value(reader, "tokenizer.ggml.model") == "bert"
    assert pieces[vocabulary["house"]] == "\u2581house"
    assert pieces[vocabulary["##e"]] == "e"
    assert pieces[vocabulary["e"]] == "\u2581e"
    assert (pieces[vocabulary["[CLS]"]], kinds[vocabulary["[CLS]"]]) == ("[CLS]", 3)  # a control token
    assert len(pieces) == len(tensors(reader)["token_embd.weight"]) > len(vocabulary)
    assert set(kinds[len(vocabulary) :]) == {5}  # unused
    assert value(reader, "tokenizer.ggml.token_type_count") == 2
    keys = {"bos": "[CLS]", "seperator": "[SEP]", "unknown": "[UNK]", "padding": "[PAD]"}
    for key, name in keys.items():
        assert value(reader, f"tokenizer.ggml.{key}_token_id") == vocabulary[name]


@pytest.mark.parametrize(
    ("config", "normalizer", "says"),
    [
        ({"model_type": "mpnet"}, {}, "llama.cpp, as it is driven here, has no mpnet; it has bert, qwen3, gemma3_text"),
        ({"hidden_act": "relu"}, {}, "GELU and absolute positions, not relu"),
        ({"position_embedding_type": "relative_key"}, {}, "absolute positions, not gelu, relative_key"),
        ({}, {"lowercase": False}, "lowercase text without accents"),
        ({}, {"strip_accents": False}, "lowercase text without accents"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    write: Write, tmp_path: Path, config: dict[str, Any], normalizer: dict[str, Any], says: str
) -> None:
    source = save_transformers(tmp_path / "other", **SIZES)
    change_json(source / "config.json", **config)
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    tokenizer["normalizer"] |= normalizer
    (source / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ValueError, match=says):
        write(source=source)


def test_a_decoder_brings_no_vocabulary(write: Write, tmp_path: Path) -> None:
    source = save_transformers(tmp_path / "qwen3", "qwen3", **SIZES, head_dim=32)
    reader = write(source=source, pooling="lasttoken")
    assert value(reader, "tokenizer.ggml.model") == "no_vocab"
    keys = {"pooling_type": 3, "vocab_size": 300, "attention.key_length": 32, "attention.head_count_kv": 3}
    assert {key: value(reader, f"qwen3.{key}") for key in keys} == keys
    exact, found = load_file(source / "model.safetensors"), tensors(reader)
    np.testing.assert_array_equal(found["blk.1.attn_q_norm.weight"], exact["layers.1.self_attn.q_norm.weight"])
    np.testing.assert_array_equal(found["blk.0.ffn_gate.weight"], exact["layers.0.mlp.gate_proj.weight"])
    assert len(found) == len(exact)


def test_bfloat16_is_read_without_a_package_for_it(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    values = torch.randn(3, 5)
    save_file({"a": values.bfloat16(), "b": values.half(), "c": values}, tmp_path / "x.safetensors")
    found = dict(gguf_checkpoint.read_safetensors(tmp_path / "x.safetensors"))
    assert all(array.dtype == np.float32 for array in found.values())
    for name, kind in (("a", torch.bfloat16), ("b", torch.float16), ("c", torch.float32)):
        np.testing.assert_array_equal(found[name], values.to(kind).float().numpy())


def test_the_decoder_of_the_comparison_is_what_its_page_says(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    small = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 32, "vocab_size": 400, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    shape = replace(random_weights.QWEN3, config={**random_weights.QWEN3.config, **small, **heads})
    folder = random_weights.write(tmp_path / "decoder", ["some words", "other words"], shape)
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    assert [type(module).__name__ for module in model] == ["Transformer", "Pooling", "Normalize"]
    assert model[1].pooling_mode == "lasttoken"
    assert model.max_seq_length == 512
    assert np.linalg.norm(model.encode(["words"]), axis=1) == pytest.approx(1, abs=1e-5)
    assert random_weights.main([str(folder)]) == 2


def test_the_long_encoder_of_the_comparison_is_one_that_is_loaded_whole(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    small = {"hidden_size": 32, "num_hidden_layers": 4, "intermediate_size": 24, "vocab_size": 400}
    config = {**random_weights.MODERNBERT.config, **small, "num_attention_heads": 2}
    shape = replace(random_weights.MODERNBERT, config=config)
    folder = random_weights.write(tmp_path / "modernbert", ["some words", "other words"], shape)
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": "float32"})
    assert model.max_seq_length == 8192
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(model[0].auto_model.state_dict())


def test_gemmas_gains_and_dense_layers_are_in_the_file(write: Write, tmp_path: Path) -> None:
    source = random_weights.write(tmp_path / "gemma", ["some words", "other words"], SMALL_GEMMA)
    reader = write(source=source)
    keys = {"dense_2_feat_out": 96, "dense_3_feat_in": 96, "pooling_type": 1, "attention.sliding_window": 512}
    assert {key: value(reader, f"gemma-embedding.{key}") for key in keys} == keys
    assert value(reader, "gemma-embedding.rope.freq_base_swa") == 10_000
    found = tensors(reader)
    np.testing.assert_array_equal(found["blk.5.post_ffw_norm.weight"], np.ones(64, np.float32))  # 0 in the checkpoint
    last = dict(gguf_checkpoint.read_safetensors(source / "3_Dense" / "model.safetensors"))
    np.testing.assert_array_equal(found["dense_3.weight"], last["linear.weight"])
    for file, changed, says in (
        (
            "2_Dense/config.json",
            {"activation_function": "torch.nn.modules.activation.Tanh"},
            "without bias or activation",
        ),
        ("config.json", {"use_bidirectional_attention": False}, "attends in both directions"),
    ):
        change_json(source / file, **changed)
        with pytest.raises(ValueError, match=says):
            gguf_checkpoint.write(source, source / "tokenizer.json", tmp_path / "x", precision="f32", pooling="mean")


def test_batches_hold_every_text_once_and_no_more_tokens_than_they_may() -> None:
    lengths = [3, 70, 5, 8, 13, 2, 64, 1] * 20
    made = list(batches(lengths, tokens=64, threads=2, texts=32))
    assert sorted(place for batch in made for place in batch) == list(range(len(lengths)))
    for batch in made:
        assert sum(lengths[place] for place in batch) <= 64 or len(batch) == 1
        assert len(batch) <= 32
    assert [lengths[batch[0]] for batch in made] == sorted((lengths[batch[0]] for batch in made), reverse=True)
    assert len(list(batches([5, 5, 5, 5], tokens=64, threads=2))) == 2  # nobody idles over a few short texts
    assert len(list(batches([1] * 1000, tokens=10_000, threads=1, texts=32))) == -(-1000 // 32)


def test_a_conversion_is_made_again_when_what_it_is_written_in_changes() -> None:
    def names(adapter: str) -> set[str]:
        return {path.stem for path in sources(adapter)}

    assert names("llama_cpp") == {"llama_cpp", "gguf_checkpoint", "length_batches", "plain_tokenizer"}
    assert names("light_embed") == {"light_embed", "onnxruntime_threads", "plain_tokenizer"}
    assert all(path.is_file() for row in CONTENDERS.values() for path in sources(row.adapter))


def test_the_server_that_is_not_there_is_a_row_that_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(llama_server.VARIABLE, str(tmp_path / "none"))
    assert "no llama-server on the PATH, and LLAMA_SERVER names none" in (llama_server.missing() or "")
    binary = tmp_path / "llama-server"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    monkeypatch.setenv(llama_server.VARIABLE, str(binary))
    assert llama_server.missing() is None
    words = llama_server.words(Path("x.gguf"), port=1234, threads=3, max_length=256)
    told = dict(zip(words[2::2], words[3::2], strict=True))
    assert words[:2] == ["--embedding", "--log-disable"]
    assert (told["--host"], told["--port"], told["--threads-batch"]) == ("127.0.0.1", "1234", "3")
    assert int(told["--ubatch-size"]) >= 256  # a text is never split: llama.cpp's encoders cannot
    assert int(told["--ctx-size"]) >= 256 * int(told["--parallel"])


@pytest.mark.skipif(
    not (environments.ROOT / "llama-cpp" / environments.STAMP).is_file(),  # the stamp comes last
    reason="no environment of llama.cpp: make bench-smoke BENCH='--contenders llama-cpp-q8' compiles it",
)
@pytest.mark.parametrize(
    ("name", "least"), [("llama-cpp-f16", 0.9999), ("llama-cpp-bf16", 0.9999), ("llama-cpp-q8", 0.999)]
)
@pytest.mark.parametrize("kind", ["bert", "qwen3", "gemma3_text"])
def test_llama_cpp_gives_the_reference_vectors(
    checkpoint: Path, tmp_path: Path, name: str, least: float, kind: str
) -> None:
    pooling = "lasttoken" if kind == "qwen3" else "mean"
    if kind == "qwen3":
        sizes = SIZES | {"num_key_value_heads": 2, "head_dim": 32}
        checkpoint = save_sentence_transformers(tmp_path / "decoder", "qwen3", pooling=pooling, **sizes)
    if kind == "gemma3_text":
        checkpoint = random_weights.write(tmp_path / "gemma", TEXTS, SMALL_GEMMA)
    model_dir = tmp_path / "model"
    model_dir.mkdir()
    (model_dir / "tokenizer.json").write_bytes((checkpoint / "tokenizer.json").read_bytes())
    facts = {"dim": 64, "pooling": [pooling], "normalize": True}
    (model_dir / "manifest.json").write_text(json.dumps(facts))
    texts = [text for text in TEXTS if text] * 3
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    place = Preparation(
        checkpoint=checkpoint,
        model_dir=model_dir,
        calibration=tmp_path / "texts.json",
        max_length=48,
        threads=2,
        cpus=[],
        logs=tmp_path,
        timeout=60,
        root=environments.ROOT,
    )
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    making = place.start(CONTENDERS[name], "prepare", prepared)
    try:
        making.answer("prepare", timeout=60)
    finally:
        making.kill()
    process = place.start(CONTENDERS[name], "serve", prepared)
    try:
        process.ask("load", timeout=60)
        process.ask("encode", timeout=60, texts=str(tmp_path / "texts.json"), save=str(tmp_path / "found.npy"))
    except ContenderError:
        print((tmp_path / f"{name}.log").read_text())
        raise
    finally:
        process.kill()
    found = np.fromfile(tmp_path / "found.npy", dtype=np.float32).reshape(len(texts), -1)
    if kind == "gemma3_text":  # its weights are bfloat16, which torch would compute in
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(str(checkpoint), device="cpu", model_kwargs={"dtype": "float32"})
        reference.max_seq_length = place.max_length
        wanted = np.asarray(reference.encode(texts))
    else:
        wanted = reference_vectors(checkpoint, texts)
    assert (found * wanted).sum(1).min() >= least
