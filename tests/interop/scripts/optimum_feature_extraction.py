"""optimum-onnx: token states, pooled by hand as 1_Pooling/config.json says."""

import json
import sys

import numpy as np
import torch
from optimum.onnxruntime import ORTModelForFeatureExtraction
from transformers import AutoTokenizer

directory, texts, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(directory)
model = ORTModelForFeatureExtraction.from_pretrained(directory)
with open(f"{directory}/1_Pooling/config.json") as file:
    assert json.load(file)["pooling_mode_mean_tokens"]
vectors = []
for text in np.array_split(json.load(open(texts, encoding="utf-8")), 16):
    inputs = tokenizer(list(text), padding=True, truncation=True, return_tensors="pt")
    states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
    vectors.append(torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1)).numpy())
np.save(out, np.concatenate(vectors))
