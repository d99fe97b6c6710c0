"""txtai: the tokenizer lies beside the graph; where texts are cut it has to be told."""

import json
import sys

import numpy as np
from txtai.embeddings import Embeddings

directory, texts, out = sys.argv[1:]
with open(f"{directory}/tokenizer_config.json", encoding="utf-8") as file:
    most = json.load(file)["model_max_length"]
model = Embeddings(path=f"{directory}/model.onnx", maxlength=most)
np.save(out, np.array(model.batchtransform(json.load(open(texts, encoding="utf-8")))))
