"""A plugin of pytest: writes a hash of every output of every onnxruntime session, by test, into $NATIVE_OUTPUTS.

`make wheels-check` compares two builds of the operators by it.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

import onnxruntime
import pytest

file = os.open(os.environ["NATIVE_OUTPUTS"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
running = ""


class Recorded(onnxruntime.InferenceSession):  # type: ignore[misc]
    """A session whose outputs are written down; whole lines, since threads and forked children write them, too."""

    def run(self, *arguments: Any, **options: Any) -> Any:
        outputs = super().run(*arguments, **options)
        hashes = " ".join(hashlib.sha256(output.tobytes()).hexdigest()[:16] for output in outputs)
        os.write(file, f"{running} {hashes}\n".encode())
        return outputs


onnxruntime.InferenceSession = Recorded


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    global running  # noqa: PLW0603
    running = item.nodeid
