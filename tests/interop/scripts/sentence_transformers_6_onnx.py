"""sentence-transformers 6, ONNX back end, with optimum-onnx 0.1.0, whose exporter does not know transformers 5.

Its newest release asks for transformers below 4.58, which sentence-transformers 6 does not take. What loads and runs a
graph works beside both; what exports one is replaced by nothing here, since nothing is exported.
"""

import sys
from pathlib import Path
from runpy import run_path
from unittest.mock import MagicMock

import transformers
import transformers.utils

transformers.utils.is_offline_mode = lambda: True
if not hasattr(transformers, "AutoModelForVision2Seq"):
    transformers.AutoModelForVision2Seq = transformers.AutoModel
for name in ("", ".__main__", ".model_configs", ".utils"):
    sys.modules[f"optimum.exporters.onnx{name}"] = MagicMock()
run_path(str(Path(__file__).with_name("sentence_transformers_onnx.py")))
