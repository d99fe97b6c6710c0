"""fastembed: a custom model whose files are here; the graph has pooled."""

import json
import sys

import numpy as np
from fastembed import TextEmbedding
from fastembed.common.model_description import ModelSource, PoolingType

directory, texts, out = sys.argv[1:]
with open(f"{directory}/manifest.json") as file:
    dim = json.load(file)["dim"]
TextEmbedding.add_custom_model(
    model="mine",
    pooling=PoolingType.DISABLED,
    normalization=False,
    sources=ModelSource(hf="mine/mine"),
    dim=dim,
    model_file="onnx/model.onnx",
)
model = TextEmbedding("mine", specific_model_path=directory)
np.save(out, np.array(list(model.embed(json.load(open(texts, encoding="utf-8"))))))
