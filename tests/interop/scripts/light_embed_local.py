"""light-embed: a local directory."""

import json
import sys

import numpy as np
from light_embed import TextEmbedding

directory, texts, out = sys.argv[1:]
model = TextEmbedding(directory, model_config={"onnx_file": "onnx/model.onnx", "normalize": False})
np.save(out, model.encode(json.load(open(texts, encoding="utf-8"))))
