"""Our own operators, which ctypes and onnxruntime open by their path; the server's page."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files, collect_dynamic_libs

binaries = collect_dynamic_libs("fastembed_rt", search_patterns=["fastembed_rt_*.so"])
datas = collect_data_files("fastembed_rt", includes=["server/*.html"])
