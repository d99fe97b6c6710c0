"""A number of threads for onnxruntime's sessions in libraries without an option for it.

A session without one takes the machine's cores, whatever CPUs the process may use, and sets each of its threads on one.
"""

from __future__ import annotations

from functools import wraps
from typing import Any


def bound(threads: int) -> None:
    """Give every session of this process, that has no number of its own, so many threads."""
    import onnxruntime

    begin = onnxruntime.InferenceSession.__init__

    @wraps(begin)
    def bounded(self: Any, model: Any, sess_options: Any = None, *more: Any, **named: Any) -> None:
        options = onnxruntime.SessionOptions() if sess_options is None else sess_options
        options.intra_op_num_threads = options.intra_op_num_threads or threads
        begin(self, model, options, *more, **named)

    onnxruntime.InferenceSession.__init__ = bounded
