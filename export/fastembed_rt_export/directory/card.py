"""The model card of a model directory: how to load it, how its vectors were checked, what is in it."""

from __future__ import annotations

import json
from typing import Any

from fastembed_rt.manifest import CLASSES, EMBEDDING, LATE_INTERACTION, RERANKING, SPARSE, Manifest
from fastembed_rt.precisions import made_for
from fastembed_rt.run.providers import NVIDIA
from fastembed_rt.system.sizes import readable

from ..gate.report import describe, details

CARD_FILE = "README.md"
HUB_GRAPH = "onnx/model.onnx"
# By task: what the hub calls it, and how the directory is used.
TAGS = {
    EMBEDDING: ("sentence-similarity", ("sentence-transformers", "feature-extraction")),
    RERANKING: ("text-ranking", ("cross-encoder", "reranker")),
    SPARSE: ("feature-extraction", ("sparse-encoder", "splade")),
    LATE_INTERACTION: ("sentence-similarity", ("multi-vector", "late-interaction")),
}
USAGE = {
    EMBEDDING: """vectors = model.encode(["A sentence.", "Another one."])  # (2, {dim}) float32
print(model.similarity(vectors, vectors))""",
    RERANKING: """print(model.rank("A question?", ["An answer.", "Another one."]))""",
    SPARSE: """vectors = model.encode(["A sentence.", "Another one."])  # indices and values of each, below {dim}
print(model.decode(vectors[0], top_k=10))
print(model.similarity(vectors, vectors))""",
    LATE_INTERACTION: """queries = model.encode_query(["A question?"])  # one (tokens, {dim}) float32 each
documents = model.encode_document(["An answer.", "Another one."])
print(model.similarity(queries, documents))""",
}

_BATCH = """tokenizer.enable_padding(pad_id={pad})
encoded = tokenizer.encode_batch(["A sentence.", "Another one."])
ids = np.array([e.ids for e in encoded], dtype=np.int64)
mask = np.array([e.attention_mask for e in encoded], dtype=np.int64)
session = onnxruntime.InferenceSession("{graph}")
(vectors,) = session.run(["sentence_embedding"], {{"input_ids": ids, "attention_mask": mask{pooling}}})
"""
# Padding would change the vectors.
_ONE_BY_ONE = """tokenizer.no_padding()
session = onnxruntime.InferenceSession("{graph}")
vectors = []
for text in ["A sentence.", "Another one."]:
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    mask = np.ones_like(ids)
    (vector,) = session.run(["sentence_embedding"], {{"input_ids": ids, "attention_mask": mask{pooling}}})
    vectors.append(vector[0])
"""


def card(manifest: Manifest) -> str:
    """Text of README.md."""
    source = manifest.source
    revision = f" at revision `{source.revision}`" if source.revision else ", a local directory"
    prompts = "".join(f"- `{name}`: `{text!r}`\n" for name, text in manifest.prompts.items())
    default = f" (default: `{manifest.default_prompt_name}`)" if manifest.default_prompt_name else ""
    overrides = "".join(f"- {key}: {value}\n" for key, value in manifest.overrides.items())
    notes = "".join(f"- {note}\n" for note in manifest.notes)
    compared = "".join(f"- {line}\n" for line in details(manifest.parity))
    left_out = "".join(f"Left out, since it does not pass: {one}.\n" for one in manifest.refused)
    roles = "".join(
        f"Texts in the role {r!r} go through {' -> '.join(m.modules)}.\n" for r, m in manifest.routes.items()
    )
    more = "\n".join(filter(None, (compared, left_out, roles)))
    rows = "".join(
        f"| {v.graph.file} | {v.target} | {v.precision} | {v.opset} | {readable(v.graph.size)} |\n"
        for encoder in (manifest, *manifest.routes.values())
        for v in encoder.variants
    )
    return f"""---
{metadata(manifest)}---

# {source.checkpoint}, as ONNX

Exported from `{source.checkpoint}`{revision} ({source.model_type}) by {manifest.created_by}.
{" -> ".join(manifest.modules)}; {outline(manifest)}.

Parity with the checkpoint: {describe(manifest.parity)}.
{chr(10) + more if more else ""}
## Load it

```python
from fastembed_rt import {CLASSES[manifest.task]}

model = {CLASSES[manifest.task]}("path/to/this/directory"{_provider(manifest)})
{USAGE[manifest.task].format(dim=manifest.dim)}
```

{_plain(manifest)}## What is in it

| file | target | precision | opset | size |
| --- | --- | --- | --- | --- |
{rows}
{f"Prompts{default}:{chr(10)}{chr(10)}{prompts}" if prompts else "No prompts."}
{f"{chr(10)}Changed at export:{chr(10)}{chr(10)}{overrides}" if overrides else ""}{
        f"{chr(10)}Notes:{chr(10)}{chr(10)}{notes}" if notes else ""
    }"""


def metadata(manifest: Manifest) -> str:
    """The lines between the dashes, which the hub reads: JSON values, so that no name is taken for something else."""
    source = manifest.source
    pipeline, tags = TAGS[manifest.task]
    found: dict[str, Any] = {"library_name": "fastembed-rt", "pipeline_tag": pipeline}
    if source.license is not None:
        found["license"] = source.license
    if source.languages:
        found["language"] = list(source.languages)
    if source.revision is not None:  # else it is a directory's name, which the hub does not know
        found["base_model"] = source.checkpoint
    files = {record.file for record in manifest.tool_files}
    tools = ["transformers.js", "text-embeddings-inference"] if HUB_GRAPH in files else []
    found["tags"] = [*tags, "onnx", *tools]
    return "".join(f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in found.items())


def outline(manifest: Manifest) -> str:
    """Size, limits and comparison of a model, in the words of its task."""
    about, late = manifest.reranking, manifest.late_interaction
    if about is not None:
        labels = f"{len(about.labels)} label{'' if len(about.labels) == 1 else 's'}"
        through = "" if about.chat is None else " through a chat template"
        return f"{labels}, activation {about.activation}, pairs{through} of {manifest.max_length} tokens at most"
    if late is not None:
        return (
            f"{manifest.dim} numbers a token, {late.similarity}, queries of {late.query_length} and documents of "
            f"{late.document_length} tokens at most"
        )
    size = "weights of {} words" if manifest.sparse is not None else "{} dimensions"
    return f"{size.format(manifest.dim)}, {manifest.max_length} tokens at most, {manifest.similarity} similarity"


def prompts_line(manifest: Manifest) -> str:
    """What stands in front of texts, by name, and of plain calls; "" where there are no prompts."""
    prompts = ", ".join(f"{name} {text!r}" for name, text in manifest.prompts.items())
    default = manifest.default_prompt_name
    return f"prompts: {prompts}; default: {f'{default}, also where none is named' if default else 'none'}" * bool(
        prompts
    )


def _provider(manifest: Manifest) -> str:
    """The argument that a directory without graphs for CPUs needs."""
    targets = [made_for(variant)[0] for variant in manifest.variants]
    return f', provider="{targets[0]}"' if set(targets) <= set(NVIDIA) else ""


def _plain(manifest: Manifest) -> str:
    """How to run the portable graph without this package; nothing where the directory has none."""
    graph = next((v.graph.file for v in manifest.variants if v.target == "portable"), None)
    if graph is None or manifest.task not in (EMBEDDING, SPARSE):
        return ""
    pooling = "" if manifest.include_prompt else ', "pooling_mask": mask'
    inside = "pooling and normalization are" if manifest.normalize else "pooling is"
    return f"""Or in plain onnxruntime; {inside} inside the graph:

```python
import numpy as np
import onnxruntime
from tokenizers import Tokenizer

tokenizer = Tokenizer.from_file("tokenizer.json")
tokenizer.enable_truncation({manifest.max_length})
{_BATCH if manifest.padding else _ONE_BY_ONE}```

""".format(pad=manifest.pad_token_id, graph=graph, pooling=pooling)
