"""What single families of architectures do otherwise than the rest, beside transformers or a reference on torch."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import transformers
from checkpoints import (
    OWN_CODE,
    TEXTS,
    assert_vectors_agree,
    change_json,
    exported_vectors,
    random_model,
    reference_vectors,
    save_sentence_transformers,
    save_tokenizer,
    save_transformers,
)
from mean_states import assert_agrees
from tolerances import close
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

from fastembed_rt import EmbeddingModel, native
from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.architectures.deberta import log_bucket
from fastembed_rt_export.architectures.jina_bert import slopes
from fastembed_rt_export.checkpoint import read as checkpoints
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.graph.cpu import CPU
from fastembed_rt_export.graph.portable import PORTABLE
from fastembed_rt_export.pipeline import ExportOptions, check_again, export
from fastembed_rt_export.tasks.embedding import build

pytestmark = pytest.mark.usefixtures("short_gate")


def saved(directory: Path, model: Any, model_type: str, **options: Any) -> Path:
    """A plain directory with this model."""
    model.save_pretrained(directory, **options)
    save_tokenizer(directory, model_type)
    return directory


@pytest.mark.parametrize("pooling", ["cls", "lasttoken"])
@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_one_token_is_pooled_as_sentence_transformers_does(tmp_path: Path, model_type: str, pooling: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling=pooling, max_seq_length=40)
    assert_vectors_agree(source, tmp_path / "out")


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_shards_in_half_precision_are_read_exactly(tmp_path: Path, model_type: str) -> None:
    half = random_model(model_type).to(torch.bfloat16)
    directory = saved(tmp_path / "half", half, model_type, max_shard_size="10KB")
    assert len(list(directory.glob("*.safetensors"))) > 1
    assert_agrees(directory, tmp_path / "out")


@pytest.mark.parametrize("model_type", sorted(ARCHITECTURES))
def test_neighbours_change_no_bit(tmp_path: Path, model_type: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, max_seq_length=40)
    export(str(source), ExportOptions(output=tmp_path / "out", verify=False))
    texts = [text or "one" for text in TEXTS]
    with EmbeddingModel(tmp_path / "out") as model:
        together = model.encode(texts)
        alone = np.stack([model.encode(text) for text in texts])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize(
    ("model_type", "task"),
    [
        ("qwen3", "Qwen3ForCausalLM"),
        ("gemma", "GemmaForCausalLM"),
        ("gemma2", "Gemma2ForCausalLM"),
        ("gemma3_text", "Gemma3ForCausalLM"),
        ("modernbert", "ModernBertForMaskedLM"),
        ("nomic_bert", "NomicBertForMaskedLM"),
        ("gte", "GteForMaskedLM"),
        ("deberta", "DebertaForMaskedLM"),
        ("deberta-v2", "DebertaV2ForMaskedLM"),
        ("ernie", "ErnieForMaskedLM"),
        ("squeezebert", "SqueezeBertForMaskedLM"),
        ("data2vec-text", "Data2VecTextForMaskedLM"),
        ("qwen2", "Qwen2ForCausalLM"),
        ("llama", "LlamaForCausalLM"),
        ("lfm2", "Lfm2ForCausalLM"),
        ("mistral", "MistralForCausalLM"),
        ("ministral3", "Ministral3ForCausalLM"),
        ("eurobert", "EuroBertForMaskedLM"),
        ("ultrabert", "UltrabertForMaskedLM"),
        ("jina_embeddings_v3", "JinaEmbeddingsV3ForMaskedLM"),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_task_models_give_the_encoder_inside(tmp_path: Path, model_type: str, task: str, tied: bool) -> None:
    model = random_model(model_type)
    model.config.tie_word_embeddings = tied
    whole = getattr(transformers, task)(model.config).eval()
    inside = whole.base_model.load_state_dict(model.state_dict(), strict=False)  # but for the pooler
    assert not inside.missing_keys
    directory = saved(tmp_path / "task", whole, model_type)
    assert_agrees(directory, tmp_path / "out", model)


@pytest.mark.parametrize("model_type", ["qwen3", "gemma2", "gemma3_text", "nomic_bert", "new"])
def test_padding_on_the_left_changes_nothing_where_positions_are_relative(tmp_path: Path, model_type: str) -> None:
    source = save_sentence_transformers(tmp_path / "left", model_type, pooling="lasttoken", max_seq_length=40)
    change_json(source / "tokenizer_config.json", padding_side="left")
    # Reference: batches of unequal lengths, padded on the left.
    assert_vectors_agree(source, tmp_path / "out")
    options = ExportOptions(output=tmp_path / "verified", trust_remote_code=True)
    assert export(str(source), options).manifest.parity["status"] == "passed"


GPT2_KEYS = {
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
    "max_position_embeddings": "n_positions",
    "layer_norm_eps": "layer_norm_epsilon",
}
NOMIC_HUB = {
    "activation_function": "swiglu",
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "prenorm": False,
    "causal": False,
}


def as_on_the_hub(directory: Path, **changes: Any) -> Path:
    """config.json of a NomicBERT with the keys that nomic-embed-text has."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    renamed = {new: config[old] for old, new in GPT2_KEYS.items()}
    gone = (*GPT2_KEYS, "rope_parameters", "hidden_act", "head_dim")
    change_json(directory / "config.json", *gone, **renamed, **{**NOMIC_HUB, **changes})
    return directory


def test_nomic_is_read_with_the_keys_it_has_on_the_hub(tmp_path: Path) -> None:
    directory = as_on_the_hub(save_transformers(tmp_path / "nomic", "nomic_bert"))
    assert_agrees(directory, tmp_path / "out", random_model("nomic_bert"))


def test_nomic_is_cut_where_its_scaling_would_depend_on_the_batch(tmp_path: Path) -> None:
    directory = as_on_the_hub(
        save_transformers(tmp_path / "nomic", "nomic_bert"), rotary_scaling_factor=2.0, max_trained_positions=24
    )
    made = export(str(directory), ExportOptions(output=tmp_path / "out", verify=False))
    assert made.manifest.max_length == 24


@pytest.mark.parametrize(
    "change",
    [
        {"prenorm": True},
        {"rotary_emb_interleaved": True},
        {"rotary_emb_fraction": 0.5},
    ],
)
def test_what_nomic_switches_on_elsewhere_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    directory = as_on_the_hub(save_transformers(tmp_path / "nomic", "nomic_bert"), **change)
    with pytest.raises(UnsupportedCheckpointError, match=next(iter(change))):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"moe_normalize_expert_weights": True}, "moe_normalize_expert_weights"),
        ({"expert_choice_router": True}, "expert_choice_router"),
        ({"ffn_div": 2}, "ffn_div"),
        ({"prenorm": True}, "prenorm"),
        ({"moe_top_k": 6}, "5 experts of which 6 are chosen"),
        ({"moe_every_n_layers": 1}, "in one of 1 layers"),
        ({"activation_function": "swishglu"}, "activation_function = 'swishglu'"),
    ],
)
def test_what_mixtures_of_experts_elsewhere_switch_on_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    directory = save_transformers(tmp_path / "nomic", "nomic_bert_moe")
    change_json(directory / "config.json", **change)
    with pytest.raises((CheckpointError, UnsupportedCheckpointError), match=said):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize(
    "settings", [{"moe_top_k": 1}, {"moe_top_k": 5}, {"moe_every_n_layers": 3}, {"num_experts": 0}]
)
def test_other_mixtures_of_experts(tmp_path: Path, settings: dict[str, Any]) -> None:
    source = save_sentence_transformers(tmp_path / "nomic", "nomic_bert_moe", max_seq_length=40, **settings)
    assert_vectors_agree(source, tmp_path / "out")


def test_routers_stay_in_float32_on_cpus_whatever_the_precision(tmp_path: Path) -> None:
    checkpoint = save_transformers(tmp_path / "plain", "nomic_bert_moe")
    precisions = ("fp32", "bf16", "int8")
    options = ExportOptions(output=tmp_path / "model", verify=False, precisions=precisions, min_cosine=0.01)
    made = export(str(checkpoint), options).manifest
    assert {variant.precision for variant in made.variants} == {*precisions}
    for variant in made.variants:
        graph = onnx.load(tmp_path / "model" / variant.graph.file, load_external_data=False).graph
        types = {weight.name: weight.data_type for weight in graph.initializer}
        layers = [node for node in graph.node if "/router/" in node.name and node.op_type not in ("Softmax", "TopK")]
        assert [node.op_type for node in layers] == ["Fp32Linear" if variant.target == "native" else "MatMul"] * 2
        assert {types[name] for node in layers for name in node.input if name in types} == {onnx.TensorProto.FLOAT}


def test_experts_compute_the_tokens_that_are_theirs_alone(tmp_path: Path) -> None:
    """On CPUs; in the graph for all providers each computes all of them."""
    source = save_sentence_transformers(tmp_path / "nomic", "nomic_bert_moe", max_seq_length=40)
    done = export(str(source), ExportOptions(output=tmp_path / "out", verify=False, precisions=("int8", "fp32")))
    gathers = {}
    for variant in done.manifest.variants:
        graph = onnx.load(str(tmp_path / "out" / variant.graph.file), load_external_data=False).graph
        gathers[variant.graph.file] = sum(
            re.search(r"/expert\.\d+/rows$", node.name) is not None for node in graph.node
        )
    assert gathers.pop("model.onnx") == 0
    assert {*gathers.values()} == {10}, gathers


@pytest.mark.parametrize("types", [1, 2])
@pytest.mark.parametrize(
    "scaling", [None, {"type": "ntk", "factor": 8.0}, {"type": "ntk", "factor": 4.0, "mixed_b": 0.6}]
)
def test_new_is_read_with_the_keys_it_has_on_the_hub(
    tmp_path: Path, types: int, scaling: dict[str, Any] | None
) -> None:
    changes: dict[str, Any] = {"type_vocab_size": types, "rope_theta": 500.0, "rope_scaling": scaling}
    directory = save_transformers(tmp_path / "new", "new", **changes)
    change_json(directory / "config.json", "rope_parameters", rope_theta=500.0, rope_scaling=scaling)
    assert_agrees(directory, tmp_path / "out", random_model("new", **changes))


@pytest.mark.parametrize("change", [{"logn_attention_scale": True}, {"position_embedding_type": "absolute"}])
def test_what_new_switches_on_elsewhere_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    directory = save_transformers(tmp_path / "new", "new")
    change_json(directory / "config.json", **change)
    with pytest.raises(UnsupportedCheckpointError, match=next(iter(change))):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize("heads", [2, 3, 4, 6, 12])
@pytest.mark.parametrize("later", [True, False])
def test_both_versions_of_jina_bert_are_built(tmp_path: Path, heads: int, later: bool) -> None:
    changes = {"num_attention_heads": heads, "qk_post_norm": later}
    directory = save_transformers(tmp_path / "jina", "jina_bert", **changes)
    assert json.loads((directory / "config.json").read_text(encoding="utf-8"))["model_type"] == "bert"
    assert_agrees(directory, tmp_path / "out", random_model("jina_bert", **changes))


def test_reglu_is_built_and_other_feed_forwards_are_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "jina", "jina_bert", feed_forward_type="reglu")
    assert_agrees(directory, tmp_path / "out")
    change_json(directory / "config.json", feed_forward_type="original")
    with pytest.raises(UnsupportedCheckpointError, match="feed_forward_type = 'original'"):
        exported_vectors(directory, tmp_path / "refused")


def test_optimum_does_not_trace_bert_where_jina_bert_is_meant(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "jina", "jina_bert")
    with pytest.raises(UnsupportedCheckpointError, match=r"jina_bert.*leave --exporter out"):
        exported_vectors(directory, tmp_path / "out", exporter="optimum")


def test_slopes_are_those_of_the_paper() -> None:
    np.testing.assert_allclose(slopes(8), [2.0**-k for k in range(1, 9)])
    np.testing.assert_allclose(slopes(12)[8:], [2.0 ** -(k + 0.5) for k in range(4)])


@pytest.mark.parametrize("model_type", sorted(OWN_CODE))
def test_code_of_a_checkpoints_own_is_run_only_where_it_is_trusted(tmp_path: Path, model_type: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, max_seq_length=40)
    made = export(str(source), ExportOptions(output=tmp_path / "out"))
    assert made.manifest.parity["status"] == "not verified"
    assert "--trust-remote-code" in str(made.manifest.parity["reason"])
    with pytest.raises(UnsupportedCheckpointError, match="--trust-remote-code"):
        check_again(tmp_path / "out", str(source), ExportOptions(), lambda _: None)
    trusting = ExportOptions(trust_remote_code=True)
    assert check_again(tmp_path / "out", str(source), trusting, lambda _: None).parity["status"] == "passed"


@pytest.mark.parametrize(
    "changes",
    [
        {"pos_att_type": ["c2p"], "share_att_key": False},
        {"pos_att_type": ["p2c"], "share_att_key": False},
        {"pos_att_type": "p2c|c2p", "share_att_key": False, "position_buckets": -1},
        {"pos_att_type": [], "relative_attention": False, "norm_rel_ebd": "none"},
        {"norm_rel_ebd": "none", "max_relative_positions": 20, "position_buckets": -1},
        {"position_biased_input": True, "type_vocab_size": 2, "embedding_size": 16},
    ],
)
def test_deberta_v2_takes_the_scores_its_config_names(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = save_transformers(tmp_path / "deberta", "deberta-v2", **changes)
    assert_agrees(directory, tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"pos_att_type": ["c2p"]},
        {"pos_att_type": ["p2c"], "position_biased_input": False},
        {"max_relative_positions": 20},
        {"relative_attention": False, "pos_att_type": None, "type_vocab_size": 2},
    ],
)
def test_deberta_takes_the_scores_its_config_names(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = save_transformers(tmp_path / "deberta", "deberta", **changes)
    assert_agrees(directory, tmp_path / "out")


def test_deberta_with_a_convolution_is_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "deberta", "deberta-v2", conv_kernel_size=3)
    with pytest.raises(UnsupportedCheckpointError, match="conv_kernel_size = 3"):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize("kind", ["relu", "gated-gelu", "gated-silu"])
def test_t5_is_built_with_either_feed_forward(tmp_path: Path, kind: str) -> None:
    directory = save_transformers(tmp_path / "t5", "t5", feed_forward_proj=kind)
    assert_agrees(directory, tmp_path / "out")


def test_the_encoder_of_a_whole_t5_is_taken(tmp_path: Path) -> None:
    encoder = random_model("t5")
    whole = transformers.T5ForConditionalGeneration(encoder.config).eval()
    whole.encoder.load_state_dict(encoder.encoder.state_dict())
    whole.shared.load_state_dict(encoder.shared.state_dict())
    directory = saved(tmp_path / "whole", whole, "t5")
    assert_agrees(directory, tmp_path / "out", encoder)


def test_t5s_own_word_for_its_activation_counts_more(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "t5", "t5")
    before = reference_vectors(directory)
    change_json(directory / "config.json", dense_act_fn="relu")
    assert np.abs(reference_vectors(directory) - before).max() > 1e-3
    assert_vectors_agree(directory, tmp_path / "out", TEXTS[:-1])  # the last is cut here
    change_json(directory / "config.json", is_gated_act=False)
    with pytest.raises(UnsupportedCheckpointError, match="is_gated_act = False"):
        exported_vectors(directory, tmp_path / "refused")


def test_another_feed_forward_of_t5_is_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "t5", "t5")
    change_json(directory / "config.json", feed_forward_proj="gated-tanh")
    with pytest.raises(UnsupportedCheckpointError, match="feed_forward_proj 'gated-tanh'"):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize(("buckets", "furthest"), [(256, 512), (8, 48), (32, 128), (10, 100)])
def test_logarithmic_buckets_are_those_of_transformers(buckets: int, furthest: int) -> None:
    distance = np.arange(-600, 601)
    wanted = make_log_bucket_position(torch.tensor(distance), buckets, furthest).to(torch.long).numpy()
    np.testing.assert_array_equal(log_bucket(distance, buckets, furthest), wanted)


@pytest.mark.parametrize(
    "changes",
    [
        {"q_groups": 4, "k_groups": 4, "v_groups": 4},
        {"q_groups": 1, "k_groups": 1, "v_groups": 1, "intermediate_groups": 1, "output_groups": 1},
        {"q_groups": 1, "k_groups": 2, "v_groups": 6, "intermediate_groups": 2, "output_groups": 8},
        {"layer_norm_eps": 0.3},  # of the embeddings alone
    ],
)
def test_squeezebert_has_the_groups_that_its_config_names(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = save_transformers(tmp_path / "squeezebert", "squeezebert", **changes)
    assert_agrees(directory, tmp_path / "out")


def test_squeezebert_multiplies_groups_and_no_zeros_between_them(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "squeezebert", "squeezebert")
    checkpoint = checkpoints.load(directory, "squeezebert")
    stored = sum(math.prod(tensor.shape) for name, tensor in checkpoint.stored.items() if "pooler" not in name)
    for target in (PORTABLE, CPU):
        graph = build(checkpoint, target, 23).graph
        assert sum(math.prod(weight.shape) for weight in graph.weights.values()) < stored


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"post_attention_groups": 2}, UnsupportedCheckpointError, "post_attention_groups = 2"),
        ({"embedding_size": 16}, UnsupportedCheckpointError, "embedding_size = 16"),
        ({"k_groups": 5}, CheckpointError, "24 channels to 24 cannot be cut into 5 groups"),
        ({"output_groups": 0}, CheckpointError, "56 channels to 24 cannot be cut into 0 groups"),
        ({"q_groups": 2}, CheckpointError, r"attention\.query\.weight is F32 \(24, 8, 1\), the config asks for"),
    ],
)
def test_groups_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, Any], error: Any, said: str) -> None:
    directory = save_transformers(tmp_path / "squeezebert", "squeezebert")
    change_json(directory / "config.json", **change)
    with pytest.raises(error, match=said):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_squeezebert_is_quantized_in_its_groups(tmp_path: Path, pooling: str) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(text for text in TEXTS if text), encoding="utf-8")
    source = save_sentence_transformers(tmp_path / "source", "squeezebert", pooling=pooling, max_seq_length=40)
    options = ExportOptions(output=tmp_path / "out", precisions=("int8",), min_cosine=0.9, calibration=texts)
    made = export(str(source), options).manifest
    own = ["native"] if native.kernels() else []
    assert [variant.target for variant in made.variants] == [*own, "cpu"]
    # Queries and values in 3 groups, keys in 2, the output, and 4 groups up and down; first tokens' queries alone.
    one_token = 3 if pooling == "cls" else 0
    assert {variant.notes["int8_groups"] for variant in made.variants} == {3 * (3 + 2 + 1 + 4 + 4) + one_token}
    wanted = reference_vectors(source)
    for variant in made.variants:
        assert not variant.notes["float_groups"]
        with EmbeddingModel(tmp_path / "out", target=variant.target) as model:
            cosines = (model.encode(TEXTS) * wanted).sum(axis=1)
        assert cosines.min() > 0.99


def test_texts_of_a_left_padded_reference_are_cut_alike(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "left", "qwen3", pooling="mean", max_seq_length=16)
    change_json(source / "tokenizer_config.json", padding_side="left")
    close(exported_vectors(source, tmp_path / "out"), reference_vectors(source))


@pytest.mark.parametrize("buckets", [8, 16])
def test_fewer_buckets_than_mpnets_distances_fall_into_are_refused(buckets: int, tmp_path: Path) -> None:
    """transformers counts 32, whatever config.json says of its table."""
    checkpoint = save_transformers(tmp_path / "checkpoint", "mpnet", relative_attention_num_buckets=buckets)
    with pytest.raises(IndexError):
        reference_vectors(checkpoint)
    with pytest.raises(CheckpointError, match=f"relative_attention_num_buckets = {buckets}; texts of 300 tokens need"):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out", verify=False))


@pytest.mark.parametrize("kinds", [("full", "sliding", "full"), ("full",) * 3, ("sliding",) * 3, None], ids=str)
def test_mistral_with_types_of_layers_is_ministral(kinds: tuple[str, ...] | None, tmp_path: Path) -> None:
    """transformers makes the one of the other's config.json, whatever it is called there."""
    directory = save_transformers(tmp_path / "mistral", "mistral")
    change_json(directory / "config.json", layer_types=kinds and [f"{kind}_attention" for kind in kinds])
    assert type(transformers.AutoModel.from_pretrained(directory)).__name__ == "MinistralModel"
    assert_vectors_agree(directory, tmp_path / "out")


@pytest.mark.parametrize("reach", [1, 6])
def test_modernberts_windows_under_their_newer_name(reach: int, tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "modernbert", "modernbert")
    before = reference_vectors(directory)
    change_json(directory / "config.json", sliding_window=reach)
    assert np.abs(reference_vectors(directory) - before).max() > 1e-3
    assert_vectors_agree(directory, tmp_path / "out")


def test_distilberts_sizes_under_the_names_of_others(tmp_path: Path) -> None:
    """transformers takes them in place of its own."""
    directory = save_transformers(tmp_path / "distilbert", "distilbert")
    before = reference_vectors(directory)
    change_json(directory / "config.json", num_attention_heads=6)
    assert np.abs(reference_vectors(directory) - before).max() > 1e-3
    assert_vectors_agree(directory, tmp_path / "out")


def test_gemma_with_capped_scores_is_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "gemma3", "gemma3_text")
    change_json(directory / "config.json", attn_logit_softcapping=5.0)
    with pytest.raises(UnsupportedCheckpointError, match=r"attn_logit_softcapping = 5\.0"):
        exported_vectors(directory, tmp_path / "out")
