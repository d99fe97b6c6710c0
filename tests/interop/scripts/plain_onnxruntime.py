"""onnxruntime and tokenizers alone."""

import json
import sys

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

directory, texts, out = sys.argv[1:]
with open(f"{directory}/tokenizer_config.json", encoding="utf-8") as file:
    settings = json.load(file)
tokenizer = Tokenizer.from_file(f"{directory}/tokenizer.json")
tokenizer.enable_truncation(settings["model_max_length"], direction=settings["truncation_side"])
tokenizer.enable_padding(pad_id=tokenizer.token_to_id(settings["pad_token"]))
session = onnxruntime.InferenceSession(f"{directory}/model.onnx")
vectors = []
for some in np.array_split(json.load(open(texts, encoding="utf-8")), 16):
    encoded = tokenizer.encode_batch(list(some))
    ids = np.array([one.ids for one in encoded], dtype=np.int64)
    mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
    vectors += session.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
np.save(out, np.concatenate(vectors))
