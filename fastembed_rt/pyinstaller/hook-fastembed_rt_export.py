"""The texts that exports are calibrated and compared with."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_data_files

datas = collect_data_files("fastembed_rt_export", includes=["data/*.jsonl"])
