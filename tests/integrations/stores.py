"""Stores and Haystack, each with its environment and suite; the case that their suites add to.

`make integrations-stores` makes the environments, in the folder of frameworks.py's.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from task_models import QUERY, Exported

from integrations import frameworks
from integrations.frameworks import TEXTS, Framework

STORES = (
    Framework("Haystack", "stores-haystack", "haystack_suite.py", {"HAYSTACK_TELEMETRY_ENABLED": "false"}),
    Framework("Chroma", "stores-databases", "chroma_suite.py"),
    Framework("LanceDB", "stores-databases", "lancedb_suite.py"),
    Framework("Qdrant", "stores-databases", "qdrant_suite.py"),
    Framework("DuckDB", "stores-databases", "duckdb_suite.py"),
    Framework("Indexes", "stores-indexes", "indexes_suite.py"),
    Framework("Servers", "stores-databases", "servers_suite.py"),
    Framework("pypdf", "stores-databases", "pdf_suite.py"),
)


def make_case(folder: Path) -> None:
    """As for the frameworks, with what sentence-transformers makes of late interaction."""
    frameworks.make_case(folder)
    reference = Exported(folder / "colbert", folder / "colbert-onnx").reference
    scores = reference.similarity(reference.encode_query([QUERY]), reference.encode_document(TEXTS))
    np.savez(folder / "late.npz", scores=np.asarray(scores)[0])
