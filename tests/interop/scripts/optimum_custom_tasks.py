"""optimum-onnx: the vectors of the graph."""

import json
import sys

import numpy as np
from optimum.onnxruntime import ORTModelForCustomTasks
from transformers import AutoTokenizer

directory, texts, out = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(directory)
model = ORTModelForCustomTasks.from_pretrained(directory)
vectors = []
for text in np.array_split(json.load(open(texts, encoding="utf-8")), 16):
    inputs = tokenizer(list(text), padding=True, truncation=True, return_tensors="pt")
    vectors.append(model(**inputs).sentence_embedding.numpy())
np.save(out, np.concatenate(vectors))
