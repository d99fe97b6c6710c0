"""Writes docs/models.md: each architecture that is built, what of it was checked, checkpoints of it on the hub; and the
tables of real weights in docs/int8.md.

    python docs/models_page.py                  the page, from the table of architectures and docs/models.json
    python docs/models_page.py --measure        docs/models.json too: exports a random checkpoint of each (minutes)
    python docs/models_page.py --measure bert   of these alone; the figures of all others stay

The figures are the parity reports of those exports: the table says what is built, they say that it was compared.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastembed_rt.precisions import PRECISIONS
from fastembed_rt_export.architectures import ARCHITECTURES, Architecture

DOCS = Path(__file__).parent
PAGE, FIGURES, TRACED = DOCS / "models.md", DOCS / "models.json", DOCS / "traced.json"
INT8_PAGE = DOCS / "int8.md"
REAL = Path(__file__).parents[1] / "benchmarks" / "precision" / "real_weights.json"
Figures = Mapping[str, Any]

TEXT = """# Models

Which architectures are supported, and how near to the reference the vectors of small checkpoints of each are. (For
your own checkpoint, the [parity report](export.md#parity) of its export says that.) Written by
`python docs/models_page.py`, not by hand.

## Built from weights

`model_type` is what the checkpoint's `config.json` says. These need no torch:

{built}

Any other encoder may be [traced](#traced-by-optimum).

## Parity of small checkpoints

{figures}

- **fp32:** largest difference from the reference over {texts} texts, alone and in batches, on vectors of unit
  length.
- **bf16, int8:** mean and worst cosine at the default gates, and the number of groups of layers that stay float to
  pass them.
- **Random weights:** the figures show that the graphs are right, and not how near [real
  weights](#int8-on-real-weights) stay in INT8, which every export measures itself.
- **Reference:** {reference}.

Not in transformers: {own}. Their reference is a small model in torch in tests/references. The export of a real
checkpoint is compared with the checkpoint's own code if `--trust-remote-code` allows that to run, and says "not
verified" if not.

## INT8 on real weights

Mean and worst cosine of native INT8 to fp32, on real texts that took no part in calibration
(`python -m benchmarks.precision.real_weights CHECKPOINT`; [INT8](int8.md#how-near-to-fp32) has all of it):

{real}

## Traced by optimum

Every other encoder that optimum can trace is exported with `fastembed-rt[optimum]` in an environment of its own, to
`model.onnx` in fp32 and, if it has products with matrices of weights, to INT8 with static scales on padded texts.
The model is traced with the inputs that sentence-transformers gives it. Before anything is written, the trace is
compared with the model at several lengths.

- **Token types** are those that the tokenizer gives a single text.
- **Rotary positions that change with the longest text of a batch** (rope type longrope): texts are cut before that
  length.
- **Padding that changes a text's states in the reference** (a convolution over the tokens; in MobileBERT the next
  token's embedding, unless the pad token's is zero): batches have texts of one length only, so a vector is that of
  the text alone.

Random checkpoints: the largest difference from the reference; mean and worst cosine of INT8 to fp32 at the default
gates, with the number of groups of layers that stay float (of 12 to 37).
`python tests/export/optimum_script.py survey DIR` in that environment prints `docs/traced.json`.

{traced}

Refused, each with its reason:

{refused}
"""
REASON = 200  # letters of it


def main(words: Sequence[str] | None = None) -> int:
    """Write the pages."""
    parser = argparse.ArgumentParser(description=" ".join((__doc__ or "").partition("\n\n")[0].split()))
    parser.add_argument(
        "--measure",
        nargs="*",
        metavar="MODEL_TYPE",
        help="export and compare a random checkpoint of each first, or of these, which leaves the others' figures",
    )
    wanted = parser.parse_args(words).measure
    if wanted is not None:
        if unknown := sorted(set(wanted) - set(ARCHITECTURES)):
            parser.error(f"not built: {', '.join(unknown)}; built are {', '.join(ARCHITECTURES)}")
        found = measured(wanted or list(ARCHITECTURES))
        if wanted:  # the page names one reference for all
            before = json.loads(FIGURES.read_text(encoding="utf-8"))
            if any(before[key] != found[key] for key in ("reference", "texts")):
                parser.error(f"the others were measured with {before['reference']}; install that, or measure all")
            known = {name: row for name, row in before["architectures"].items() if name in ARCHITECTURES}
            found["architectures"] = {**known, **found["architectures"]}
        FIGURES.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(FIGURES.read_text(encoding="utf-8"))), encoding="utf-8")
    INT8_PAGE.write_text(int8_page(INT8_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def measured(names: Sequence[str]) -> dict[str, Any]:
    """Parity figures of architectures by target and precision, and what they were taken with."""
    from checkpoints import save_sentence_transformers

    from fastembed_rt_export.pipeline import ExportOptions, export

    found: dict[str, Any] = {}
    report: Mapping[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory() as work:
            source = save_sentence_transformers(Path(work) / "source", name, max_seq_length=40)
            options = ExportOptions(output=Path(work) / "made", precisions=PRECISIONS["cpu"], trust_remote_code=True)
            manifest = export(str(source), options).manifest
        report = manifest.parity
        found[name] = {
            f"{variant.target} {variant.precision}": {
                **{
                    key: report["variants"][variant.graph.file][key]
                    for key in ("max_abs_diff", "mean_cosine", "min_cosine")
                },
                "float_groups": len(variant.notes.get("float_groups", ())),
            }
            for variant in manifest.variants
        }
    return {"architectures": found, "reference": report["reference"], "texts": report["texts"]}


def int8_page(text: str) -> str:
    """docs/int8.md with the tables that the record of real weights gives now."""
    from benchmarks.precision import real_weights

    real = json.loads(REAL.read_text(encoding="utf-8"))
    for made in (real_weights.cosine_table(real), real_weights.score_table(real)):
        head = re.escape(made.split("|")[1].strip())
        there = list(re.finditer(rf"^\| {head} .*\n(?:\|.*\n)*", text, flags=re.MULTILINE))
        assert len(there) == 1, head
        text = text[: there[0].start()] + made + "\n" + text[there[0].end() :]
    return text


def page(figures: Figures) -> str:
    """The page."""
    from checkpoints import OWN_CODE

    columns = sorted({column for row in figures["architectures"].values() for column in row}, key=_order)
    real = json.loads(REAL.read_text(encoding="utf-8"))
    built, compared = [["architecture", "model_type", "for example"]], [["architecture", *columns]]
    for name, row in ARCHITECTURES.items():
        cells = [_cell(column, figures["architectures"].get(name, {}).get(column)) for column in columns]
        built.append([row.title, _model_type(name), _examples(row)])
        compared.append([row.title, *cells])
    traced = json.loads(TRACED.read_text(encoding="utf-8"))
    own = "; ".join(row.title for name, row in ARCHITECTURES.items() if name in OWN_CODE)
    return TEXT.format(
        built=_table(built),
        figures=_table(compared),
        real=_real_table(real),
        texts=figures["texts"],
        reference=figures["reference"],
        own=own,
        **_traced(traced),
    )


def _traced(found: Figures) -> dict[str, str]:
    """The tables of what optimum traces and of what it does not."""
    right = [["model_type", "fp32", "int8", "texts of a batch"]]
    refused = [["model_type", "the export says"]]
    for name, row in found.items():
        model_type, _, which = name.partition(":")
        title = f"`{model_type}`" + (f", {which}" if which else "")
        if "text" in row:
            said = row["text"] if len(row["text"]) <= REASON else f"{row['text'][:REASON].rsplit(' ', 1)[0]} …"
            refused.append([title, said.replace("|", "\\|")])
        else:
            together = "of any length" if row["padding"] else "of one length"
            right.append([title, f"{row['max_abs_diff']:.0e}", _traced_int8(row.get("int8")), together])
    return {"traced": _table(right), "refused": _table(refused)}


def _traced_int8(figures: Figures | None) -> str:
    """Mean and worst cosine of a traced graph's INT8, or what the export says."""
    if figures is None:
        return "not measured"
    return f"no: {figures['refused']}" if "refused" in figures else _cell("int8", figures)


def _order(column: str) -> tuple[int, str]:
    target, precision = column.split()
    return PRECISIONS["cpu"].index(precision), {"portable": ""}.get(target, target)


def _cell(column: str, figures: Figures | None) -> str:
    if figures is None:
        return "no"
    if not column.endswith("fp32"):
        stays = figures["float_groups"]
        return _cosines(figures["mean_cosine"], figures["min_cosine"]) + (f", {stays} float" if stays else "")
    return f"{figures['max_abs_diff']:.0e}"


def _cosines(mean: float, least: float) -> str:
    return f"{mean:.4f} / {least:.4f}"


def _real_table(real: Figures) -> str:
    lines = [["checkpoint", "model_type", "texts", "mean / worst", "layers in float", "dynamic quantization"]]
    for name, entry in real.items():
        ours, dynamic = (
            _cosines(cosine["mean"], cosine["min"]) if (cosine := entry["cosines"].get(graph)) else "not measured"
            for graph in ("int8, native", "dynamic")
        )
        stays = str(len(entry["float_groups"]["native"]))
        lines.append([name, f"`{entry['model_type']}`", str(entry["texts"]), ours, stays, dynamic])
    return _table(lines)


def _model_type(name: str) -> str:
    said = {"jina_bert": "`bert`, alibi", "nomic_bert_moe": "`nomic_bert`, experts"}
    said["qwen3_bidirectional"] = "`qwen3`, bidirectional"
    said["lfm2_bidirectional"] = "`lfm2`, bidirectional; also `lfm2_bidirectional`"
    said["clip_text_model"] = "`clip`; also `clip_text_model`"
    said["embedding_gemma2_text"] = "`embedding_gemma2`; also `embedding_gemma2_text`"
    return said.get(name, f"`{name}`")


def _examples(row: Architecture) -> str:
    return ", ".join(f"[{name}](https://huggingface.co/{name})" for name in row.examples)


def _table(lines: list[list[str]]) -> str:
    head, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *rest])


if __name__ == "__main__":
    sys.path.append(str(DOCS.parent / "tests"))  # where the random checkpoints are made
    sys.exit(main())
