"""Every key of a checkpoint's settings files, and what becomes of it: honoured, without effect, or refused by name.

As sentence-transformers 6.2 and transformers 5.24 read them. What their constructors take by name they refuse when it
is unknown, and so does `check`; what they pass over is passed over here, and said.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import CheckpointError, UnsupportedCheckpointError

Harmless = Callable[[Any], bool]


@dataclass(frozen=True)
class Rule:
    """One key: the values that are taken, and why the others are not."""

    because: str  # what honours it, why it has no effect, or what it would change
    taken: Harmless = lambda _: True


@dataclass(frozen=True)
class File:
    """The keys of one file."""

    name: str
    rules: Mapping[str, Rule]
    noted: bool = False  # whether keys that are not here are passed over and said, as the reference does; else refused
    advice: str = ""  # what to do about keys that are not here, where the reference takes them
    own: Harmless = field(default=lambda _: False)  # keys beside those of `rules` that are honoured


def _honoured(by: str, *keys: str) -> dict[str, Rule]:
    return dict.fromkeys(keys, Rule(by))


_without_effect = _honoured  # the same to `check`; the reason differs


def _refused(because: str, *keys: str, taken: Harmless = lambda value: value is None) -> dict[str, Rule]:
    return dict.fromkeys(keys, Rule(because, taken))


def _empty(value: Any) -> bool:
    return not value


def _among(*values: Any) -> Harmless:
    return lambda given: any(given is value or (type(given) is type(value) and given == value) for value in values)


_HUB = ("cache_dir", "token", "use_auth_token", "revision", "code_revision", "local_files_only", "subfolder")
_HUB_KEYS = _without_effect("where files are fetched from, which the loader decides", *_HUB, "trust_remote_code")

CONFIG_KWARGS = File(
    "config_kwargs",
    {
        **_HUB_KEYS,
        **_without_effect("how torch computes, not what", "use_cache", "attn_implementation", "output_attentions"),
        **_without_effect("numbers are read as float32", "torch_dtype", "dtype"),
    },
    advice="it changes config.json; write it there",
)
MODEL_KWARGS = File(
    "model_kwargs",
    {
        **_HUB_KEYS,
        **_without_effect("how torch computes, not what", "attn_implementation", "device_map"),
        **_without_effect("how weights are read, not which", "low_cpu_mem_usage", "add_pooling_layer"),
        **_without_effect("numbers are read as float32", "torch_dtype", "dtype"),
    },
    advice="it may change the model; save the model that it makes with save_pretrained() and leave the key out",
)


def _modality(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and ("text" in value or "message" in value))


_OF_TEXTS = {
    **_honoured("checkpoint/limits.py", "max_length"),
    **_without_effect(
        "padding is masked", "padding_side", "pad_to_multiple_of", "return_attention_mask", "verbose", "logits_to_keep"
    ),
    **_refused("texts of a batch are padded to one length", "padding", taken=_among(True, "longest", "max_length")),
    **_refused("texts are cut at their end or beginning", "truncation", taken=_among(True, "longest_first")),
    **_refused("vectors are made of tensors", "return_tensors", taken=_among("pt")),
}
# Arguments of transformers' apply_chat_template; any other is a variable of the template.
CHAT = File(
    "processing_kwargs 'chat_template'",
    {
        **_honoured("tokenizer/chat_template.py", "restore_suffix", "add_generation_prompt"),
        **_OF_TEXTS,
        **_refused(
            "pairs would become other texts; write what it does into the template and leave it out",
            *("chat_template", "tools", "documents", "continue_final_message", "sanitize_control_tokens"),
            *("tokenize", "return_dict", "return_assistant_tokens_mask", "tokenizer_kwargs", "conversation"),
            taken=_empty,
        ),
    },
    own=lambda _: True,
)
PROCESSING_TEXT = File("processing_kwargs", _OF_TEXTS, advice="texts would have other tokens; leave it out")
TRANSFORMER = File(
    "sentence_bert_config.json",
    {
        **_honoured("checkpoint/read.py: what the transformer gives", "transformer_task", "module_output_name"),
        **_honoured("checkpoint/limits.py", "max_seq_length"),
        **_honoured("checkpoint/limits.py, tasks/late_layouts.py", "query_length", "document_length"),
        **_honoured("tokenizer/tokenizer_json.py", "do_lower_case", "processor_kwargs", "tokenizer_args"),
        **_honoured("CONFIG_KWARGS", "config_kwargs", "config_args"),
        **_honoured("MODEL_KWARGS", "model_kwargs", "model_args"),
        **_honoured("PROCESSING_TEXT", "processing_kwargs"),
        **_honoured("tasks/late_layouts.py; refused by checkpoint/read.py for other tasks", "query_expansion"),
        **_without_effect("how padding is avoided, not what is computed", "unpad_inputs"),
        **_without_effect("the loader decides", "cache_dir", "backend"),
        # checkpoint/transformer.py refuses "message" where a task puts no texts through a chat template.
        **_refused("texts would not be read as plain text", "modality_config", taken=_modality),
        **_refused(
            "another directory's tokenizer would be taken; copy its files beside config.json and leave the key out",
            "tokenizer_name_or_path",
        ),
    },
)
SENTENCE = File(
    "config_sentence_transformers.json",
    {
        **_honoured("checkpoint/read.py", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim"),
        **_honoured("tasks/__init__.py", "model_type"),
        **_honoured("tasks/sparse.py", "max_active_dims"),
        **_honoured("tasks/reranking.py", "activation_fn"),
        **_honoured(
            "tasks/late_layouts.py, for PyLate's checkpoints; other tasks do not read them",
            *("query_length", "document_length", "do_query_expansion", "attend_to_expansion_tokens"),
            *("attend_to_mask_tokens", "query_prefix", "document_prefix", "skiplist_words", "query_expansion"),
        ),
        **_without_effect("versions of what wrote it", "__version__", "requirements"),
        **_without_effect("everything is float32", "keep_in_fp32_modules"),
    },
    noted=True,
)
MODULES = File(
    "modules.json",
    {
        **_honoured("files.py", "type", "path", "name"),
        **_without_effect("sentence-transformers takes the order of the file", "idx"),
        **_without_effect("names that a caller may pass to encode(), and nobody does here", "kwargs"),
    },
    noted=True,
)
_LEGACY_POOLING = (
    *("pooling_mode_cls_token", "pooling_mode_max_tokens", "pooling_mode_mean_tokens"),
    *("pooling_mode_mean_sqrt_len_tokens", "pooling_mode_weightedmean_tokens", "pooling_mode_lasttoken"),
)
_WIDTH = _without_effect("the width is that of the states", "embedding_dimension", "word_embedding_dimension")
POOLING = File(
    "Pooling", {**_honoured("checkpoint/modules.py", "pooling_mode", "include_prompt", *_LEGACY_POOLING), **_WIDTH}
)
DENSE = File(
    "Dense",
    {
        **_honoured(
            "checkpoint/modules.py", "in_features", "out_features", "bias", "activation_function", "use_residual"
        ),
        **_honoured("checkpoint/modules.py", "module_input_name", "module_output_name"),
        **_without_effect("weights come from their file", "init_weight", "init_bias"),
    },
    noted=True,
)
LAYER_NORM = File("LayerNorm", _honoured("checkpoint/modules.py", "dimension"))
NORMALIZE = File("Normalize", _honoured("checkpoint/modules.py", "module_input_name", "module_output_name"), noted=True)
LOGIT_SCORE = File(
    "LogitScore", _honoured("tasks/logit_score.py", "true_token_id", "false_token_id", "module_input_name")
)
DROPOUT = File("Dropout", _without_effect("nothing is dropped at inference", "dropout"))
SPLADE_POOLING = File(
    "SpladePooling",
    {
        **_honoured("tasks/sparse.py", "pooling_strategy", "activation_function"),
        **_without_effect("how memory is saved, not what is computed", "chunk_size"),
        **_WIDTH,
    },
)
MULTI_VECTOR_MASK = File(
    "MultiVectorMask", _honoured("tasks/late_layouts.py", "skiplist_words", "skiplist_tasks", "keep_only_token_ids")
)

_TOKENIZER = {
    **_honoured("checkpoint/limits.py", "model_max_length", "max_len"),
    **_honoured("tokenizer/tokenizer_json.py", "truncation_side"),
    **_honoured("tokenizer/class_names.py", "tokenizer_class"),
    **_honoured(
        "tokenizer/rules.py, for the classes that read them",
        *("do_lower_case", "strip_accents", "tokenize_chinese_chars", "add_prefix_space", "keep_accents"),
        *("split_by_punct", "clean_text", "legacy", "unk_id", "extra_ids", "offset", "mask_token_sent"),
    ),
    **_honoured(
        "tokenizer/added_tokens.py: tokens that texts may hold",
        *("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"),
        *("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens"),
    ),
    **_honoured("tokenizer/chat_template.py; refused where it is not built that texts go through it", "chat_template"),
    **_without_effect("padding is masked", "padding_side", "pad_to_multiple_of", "pad_token_type_id", "padding"),
    **_without_effect("decoding only", "clean_up_tokenization_spaces", "spaces_between_special_tokens", "errors"),
    **_without_effect(
        "decoding only", "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output", "trim_offsets"
    ),
    **_without_effect("of chats", "chat_control_tokens", "response_template", "response_schema"),
    **_without_effect("of chats", "use_default_system_prompt"),
    **_without_effect("arguments of a call, not of a tokenizer", "max_length", "stride", "truncation_strategy"),
    **_without_effect("arguments of a call, not of a tokenizer", "return_token_type_ids", "truncation"),
    **_without_effect("where files were; those beside it are read", "vocab_file", "merges_file", "tokenizer_file"),
    **_without_effect("where files were; those beside it are read", "special_tokens_map_file", "spm_file", "vocab"),
    **_without_effect("where files were; those beside it are read", "name_or_path", "full_tokenizer_file"),
    **_without_effect("of slow tokenizers", "do_basic_tokenize", "never_split", "sp_model_kwargs", "use_fast"),
    **_without_effect("of slow tokenizers, or decoding only", "wordpieces_prefix", "remove_space"),
    **_honoured("tokenizer/ends.py, for the classes that read them", "add_bos_token", "add_eos_token"),
    **_without_effect("texts go through its tokenizer", "processor_class", "image_processor_type"),
    **_without_effect("of the library", "backend", "is_local", "files_loaded", "verbose", *_HUB_KEYS),
    **_honoured("tokenizer/ends.py: code of the checkpoint's own is known, compared with or refused", "auto_map"),
    **_refused("tokens with special names would be split like other words", "split_special_tokens", taken=_empty),
    **_refused(
        "the model would see padding as text",
        "model_input_names",
        taken=lambda value: value is None or (isinstance(value, list) and "attention_mask" in value),
    ),
    **_refused("they take the places of the tokenizer's arguments", "init_inputs", taken=_empty),
    **_refused(
        "another file than tokenizer.json would be read; name the one to read tokenizer.json and leave the key out",
        "fast_tokenizer_files",
        taken=lambda value: value in (None, [], ["tokenizer.json"]),
    ),
    **_refused("the pattern that splits texts would be another", "fix_mistral_regex", taken=_empty),
    **_refused(
        "it stands in for a part of tokenizer.json; write it there",
        *("post_processor", "tokenizer_object", "gguf_file", "tokenizer_truncation", "tokenizer_padding"),
    ),
    **_refused(
        "it is an argument of a call, which transformers refuses as a setting", "add_special_tokens", "encode", "pad"
    ),
}


def _names_a_token(key: str) -> bool:
    return key.endswith("_token")


TOKENIZER = File("tokenizer_config.json", _TOKENIZER, noted=True, own=_names_a_token)
PROCESSOR_KWARGS = File(
    "processor_kwargs",
    {
        **_TOKENIZER,
        # Against a file these decide, and replace tokenizer.json's template.
        **_refused(
            "the special tokens around texts would be others; write them into tokenizer.json's post_processor",
            *("add_bos_token", "add_eos_token"),
        ),
        **_refused("another file would be read; leave it out", "vocab_file", "merges_file", "tokenizer_file", "vocab"),
        **_refused("another class of tokenizers would be taken; write it into tokenizer_config.json", "tokenizer_type"),
    },
    noted=True,
    own=_names_a_token,
)
FILES = (
    *(TRANSFORMER, CONFIG_KWARGS, MODEL_KWARGS, PROCESSOR_KWARGS, PROCESSING_TEXT, SENTENCE, MODULES, TOKENIZER),
    *(POOLING, DENSE, LAYER_NORM, NORMALIZE, DROPOUT, SPLADE_POOLING, MULTI_VECTOR_MASK, LOGIT_SCORE, CHAT),
)


WORD_EMBEDDINGS = File(
    "wordembedding_config.json",
    {
        **_honoured("checkpoint/words.py", "tokenizer_class", "max_seq_length"),
        **_without_effect("of training", "update_embeddings"),
    },
)
WORD_WEIGHTS = File("WordWeights", _honoured("checkpoint/words.py", "vocab", "word_weights", "unknown_word_weight"))
SPARSE_STATIC = File(
    "SparseStaticEmbedding",
    {
        **_honoured("where the weights are", "path"),
        **_without_effect("of training", "frozen"),
    },
)
_INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")
LORA = File(
    "adapter_config.json",
    {
        **_honoured(
            "merged",
            *("peft_type", "base_model_name_or_path", "revision", "r", "lora_alpha", "use_rslora", "rank_pattern"),
            *("alpha_pattern", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
            *("modules_to_save", "lora_bias"),
        ),
        **_refused("peft refuses it too", "bias", taken=_among("none", "all", "lora_only")),
        **_without_effect(
            "of training, or of what wrote the file",
            *("lora_dropout", "inference_mode", "task_type", "auto_mapping", "peft_version", "runtime_config"),
            *("megatron_core", "qalora_group_size", "loftq_config", "eva_config", "corda_config", "lora_ga_config"),
            # Of GPT-2's layers, which are stored the other way around; peft drops it where layers are plain.
            "fan_in_fan_out",
        ),
        **_refused(
            "peft changes the base's weights before it adds such an adapter; save it as a plain LoRA with "
            "save_pretrained(..., path_initial_model_for_weight_conversion=...) of peft, or merge it there",
            "init_lora_weights",
            taken=_among(*_INITIAL),
        ),
        **_refused("DoRA scales each row of the merged weight: merge it with peft first", "use_dora", taken=_empty),
        **_refused(
            "it is computed otherwise than W + B A: merge it with peft first, where peft can",
            *("use_qalora", "alora_invocation_tokens", "layer_replication", "megatron_config", "use_bdlora"),
            *("trainable_token_indices", "target_parameters", "arrow_config", "kasa_config", "monteclora_config"),
            *("velora_config", "ensure_weight_tying"),
            taken=_empty,
        ),
    },
    advice="it is not known what it changes; merge the adapter with peft first",
)


def check(file: File, given: Mapping[str, Any], where: object, notes: list[str]) -> None:
    """Refuse what is not built, and note what the reference passes over.

    Args:
        file: the keys that are known.
        given: the settings.
        where: what messages call their place.
        notes: gets a sentence on keys that nobody reads.

    Raises:
        UnsupportedCheckpointError: a key or a value that would change vectors.
        CheckpointError: a key that the reference refuses as well.
    """
    unknown = []
    for key, value in given.items():
        rule = file.rules.get(key)
        if rule is None:
            unknown += [] if file.own(key) else [str(key)]
        elif not rule.taken(value):
            raise UnsupportedCheckpointError(f"{where} has {key} {_short(value)}, which is not built: {rule.because}")
    if not unknown:
        return
    names = ", ".join(map(repr, unknown[:4])) + (f" and {len(unknown) - 4} more" if len(unknown) > 4 else "")
    if file.noted:
        notes.append(f"{where} has {names}, which the reference passes over")
    elif file.advice:
        raise UnsupportedCheckpointError(f"{where} has {names}, which is not built: {file.advice}")
    else:
        raise CheckpointError(
            f"{where} has {names}, which sentence-transformers refuses as well; known: {', '.join(sorted(file.rules))}"
        )


def _short(value: Any, most: int = 80) -> str:
    text = repr(value).replace("\n", " ")
    return text if len(text) <= most else text[:most] + "..."
