"""Makes the helpers that lie in this directory importable from every test."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

# Where transformers copies the code of checkpoints that have their own; read when it is imported.
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="fastembed-rt-modules-"))
