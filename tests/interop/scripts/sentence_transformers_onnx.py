"""sentence-transformers, ONNX back end."""

import json
import sys

import numpy as np
from sentence_transformers import SentenceTransformer

directory, texts, out = sys.argv[1:]
model = SentenceTransformer(directory, backend="onnx", device="cpu", local_files_only=True)
np.save(out, model.encode(json.load(open(texts, encoding="utf-8"))))
