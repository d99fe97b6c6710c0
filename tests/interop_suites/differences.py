"""Foreign tests that do not apply to our classes, by what their names hold, and why."""

from __future__ import annotations

from collections.abc import Mapping

Outcomes = Mapping[str, Mapping[str, str]]
FILE = "(the file itself)"  # in place of a test, where none of a file's ran
WEIGHTS = "needs real checkpoints or the hub: fails with the library's own classes on the stand-ins too"
TORCH = "looks into torch modules, or replaces them: a model directory has one finished graph"
WORDS = "compares the words of a message; the kind of the error, or the warning, is the same"
SILENT = "expects a warning for a name of an earlier version, which works here in silence"
FILES = "looks for the checkpoint's own files: weights are in ONNX here, and the card is the export's"
CONVERT = "makes another kind of model of a checkpoint while it loads; here that is the export's choice"
TRAINED = "trains a model"
TEMPLATES = "is about chat templates, images or generating models, which are not exported"
CALIBRATION = "is about settings of one call's tokenizer (processing_kwargs), which are refused by name"
POOLING = "changes the pooling of a loaded model: it is part of the graph"
TOKENS = "needs vectors of tokens, from an export that has a graph for them"
# (part of the file's name, part of the test's name): why.
REASONS: dict[tuple[str, str], str] = {
    ("", "routes_through_module_call"): TORCH,
    ("", "transformers_model_property"): TORCH,
    ("", "per_call_processing_kwargs"): CALIBRATION,
    ("", "safe_serialization"): FILES,
    ("", "model_card_save_update"): FILES,
    ("", "parse_model_config"): TORCH,
    ("", "test_conversion"): CONVERT,
    ("", "rejects_multi_vector_names"): WORDS,
    ("", "test_push_to_hub"): WORDS,
    ("", "get_model_kwargs"): WORDS,
    ("sentence_transformer/test_model", "load_local_without_normalize"): TORCH,
    ("sentence_transformer/test_model", "prompt_length_calculation"): POOLING,
    ("sentence_transformer/test_model", "load_with_model_kwargs"): TORCH,
    ("sentence_transformer/test_model", "encode_quantization[error"): WORDS,
    ("test_model", "test_prompts"): WORDS,
    ("util/test_similarity", "mean_maxsim"): "is about token vectors, which LateInteractionModel compares",
    ("sparse_encoder/test_model", "test_decode_invalid"): WORDS,
    ("sparse_encoder/test_model", "splade_pooling_chunk_size"): TORCH,
    ("sparse_encoder/test_model", "test_csr_"): CONVERT,
    ("sparse_encoder/test_model", "max_active_dims_set_init"): CONVERT,
    ("sparse_encoder/test_model", "test_default_to_csr"): CONVERT,
    ("sparse_encoder/test_model", "test_detect_mlm"): TORCH,
    ("sparse_encoder/test_model", "numpy_2d_string_array"): "gives two texts as one input, which is refused",
    ("cross_encoder/test_model", "test_logger_warning"): SILENT,
    ("cross_encoder/test_model", "test_default_activation_fn"): SILENT,
    ("cross_encoder/test_model", "test_rank_multiple_labels"): WORDS,
    ("cross_encoder/test_model", "classifier_dropout"): TORCH,
    ("cross_encoder/test_model", "activation_fn_from_config_custom"): FILES,
    ("cross_encoder/test_model", "from_dense_scores_module"): TORCH,
    ("cross_encoder/test_model", "ignores_dense_without_scores"): TORCH,
    ("cross_encoder/test_model", "without_transformer"): TORCH,
    ("cross_encoder/test_model", "predict_batch_size_1"): TORCH,
    ("cross_encoder/test_model", "predict_low_precision"): TORCH,
    ("cross_encoder/test_model", "test_empty_predict"): TORCH,
    ("cross_encoder/test_model", "num_labels_fresh_model"): CONVERT,
    ("cross_encoder/test_model", "activation_fn_from_kwargs"): CONVERT,
    ("cross_encoder/test_model", "test_bfloat16"): "asks for bfloat16, for which there is no graph for CPUs",
    ("test_model", "test_save_load_prompts"): WORDS,
}


def sorted_out(file: str, theirs: Outcomes, ours: Outcomes) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Tests that passed; those that failed, with their error; those that do not apply, with the reason."""
    passed: list[str] = []
    failed: dict[str, str] = {}
    left: dict[str, str] = {}
    for test, result in ours.items():
        own = theirs.get(test)
        if result["outcome"] == "passed":
            passed.append(test)
        elif own is None:  # nobody has seen it fail there
            failed[test] = result["why"]
        elif own["outcome"] == "skipped":
            left[test] = f"skipped there: {own['why']}"
        elif own["outcome"] != "passed":
            left[test] = WEIGHTS if test != FILE else f"does not begin with the library's own classes: {own['why']}"
        else:
            why = next((why for (place, name), why in REASONS.items() if place in file and name in test), None)
            if why is None and "vectors of tokens are not possible" in result["why"]:
                why = TOKENS
            if why is None:
                failed[test] = result["why"]
            else:
                left[test] = why
    return passed, failed, left
