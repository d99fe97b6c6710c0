"""What an OpenVINO model really runs with, as it says itself."""

from __future__ import annotations

from typing import Any

ASKED = ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "NUM_STREAMS", "PERFORMANCE_HINT")


def facts(compiled: Any) -> dict[str, str]:
    """Its properties in words."""
    found = {name: compiled.get_property(name) for name in ASKED}
    return {name: str(x.get_type_name() if hasattr(x, "get_type_name") else x) for name, x in found.items()}
