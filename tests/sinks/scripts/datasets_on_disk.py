"""Saves texts as datasets does: `datasets_on_disk.py FOLDER` with the texts as JSON on standard input."""

import json
import sys

from datasets import Dataset, DatasetDict

folder = sys.argv[1]
made = Dataset.from_dict({"text": json.load(sys.stdin)})
made.save_to_disk(f"{folder}/plain", num_shards=3)
made.select(range(4, 0, -1)).save_to_disk(f"{folder}/selected")
DatasetDict({"train": made, "test": made}).save_to_disk(f"{folder}/splits")
