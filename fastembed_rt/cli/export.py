"""`fastembed-rt export`: a checkpoint becomes a model directory."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from ..errors import InvalidInputError, MissingDependencyError, ParityError, UnsupportedCheckpointError
from ..manifest import TASKS
from ..run import memory
from ..system.progress import Steps
from ..system.sizes import readable
from .arguments import add_hub_options, min_cosine, path, text

if TYPE_CHECKING:
    from fastembed_rt_export.pipeline import Exported

    from ..manifest import Manifest

POOLINGS = "cls, max, mean, mean_sqrt_len, weightedmean, lasttoken"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `export` to the command line."""
    parser = subparsers.add_parser(
        "export",
        help="export a checkpoint into a model directory",
        description="Export a hub id, a sentence-transformers or a transformers directory to a model directory. A "
        "precision whose vectors are too far from the reference, or that cannot be made of the checkpoint, is left "
        "out: the others are there, and the exit code is 4. Where none passes, nothing is written.",
    )
    parser.add_argument("checkpoint", help="hub id or directory; of a LoRA adapter too, which is merged into its base")
    parser.add_argument(
        "--base", metavar="CHECKPOINT", help="base of a LoRA adapter (default: as its adapter_config.json says)"
    )
    parser.add_argument(
        "--adapter",
        metavar="NAME",
        help="one of the LoRA adapters of a checkpoint that holds several: its folder, or a task of "
        "Jina's models; query=NAME,document=NAME: one for each role, in one directory",
    )
    parser.add_argument("-o", "--output", type=path, help="model directory to make (default: NAME-onnx here)")
    parser.add_argument("--force", action="store_true", help="replace the output when it exists")
    parser.add_argument(
        "--task",
        choices=("auto", *TASKS),
        default="auto",
        help="what the checkpoint is for (default: as its files say; a ...ForMaskedLM is sparse only when asked for)",
    )
    parser.add_argument("--pooling", help=f"instead of the checkpoint's; one of {POOLINGS}, or several joined by +")
    parser.add_argument("--normalize", action=argparse.BooleanOptionalAction, help="instead of the checkpoint's")
    parser.add_argument("--max-length", type=int, help="tokens, special tokens included, instead of the checkpoint's")
    parser.add_argument(
        "--truncate-dim", type=int, metavar="N", help="first N dimensions (Matryoshka models), cut before normalization"
    )
    parser.add_argument(
        "--prompt", action="append", type=text, metavar="NAME=TEXT", help="add or change a prompt; repeatable"
    )
    parser.add_argument("--default-prompt", type=text, metavar="NAME", help="prompt that plain encode uses")
    parser.add_argument(
        "--target",
        default="cpu",
        help="cpu, cuda, tensorrt, or several joined by commas: what the graphs are made for; cpu includes model.onnx, "
        "for any runtime (default: cpu)",
    )
    parser.add_argument(
        "--precision",
        help="fp32, bf16 and int8 for cpu; fp16, bf16, fp8 and fp32 for cuda; fp16 and fp32 for tensorrt; several "
        "joined by commas, the first is the directory's default (default: fp32; for GPUs alone fp16)",
    )
    parser.add_argument(
        "--calibration", type=path, metavar="FILE|DIR", help="texts for int8 and fp8 instead of those that ship"
    )
    parser.add_argument(
        "--min-cosine", type=min_cosine, help="floor for int8 vectors, below which int8 is left out (default: 0.98)"
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="compare with code of the checkpoint's own, if it has some: runs it",
    )
    parser.add_argument("--opset", type=int, help="opset of model.onnx, 17 to 24 (default: 17)")
    parser.add_argument(
        "--exporter",
        choices=("auto", "builder", "optimum"),
        default="auto",
        help="build from the weights, or trace with optimum (default: trace what has no builder)",
    )
    parser.add_argument(
        "--layout",
        choices=("plain", "hub"),
        default="plain",
        help="hub: model.onnx has last_hidden_state as its second output and is there as onnx/model.onnx too, for "
        "sentence-transformers, optimum and transformers.js (default: plain)",
    )
    parser.add_argument("--external-data", action="store_true", help="weights beside model.onnx also under 2 GB")
    parser.add_argument(
        "--tokens",
        action="store_true",
        help="graphs of token states too, for output='tokens' and encode_spans (late chunking); a few kilobytes, as "
        "they share the weights",
    )
    parser.add_argument(
        "--no-verify", dest="verify", action="store_false", help="skip the comparison with the reference"
    )
    add_hub_options(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export and print a summary; returns 4 when a precision was left out."""
    try:
        from fastembed_rt_export.checkpoint.read import Overrides
        from fastembed_rt_export.gate.parity import INT8_MIN_COSINE
        from fastembed_rt_export.graph.portable import DEFAULT_OPSET
        from fastembed_rt_export.pipeline import ExportOptions, export
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"{error.name} is not installed; pip install 'fastembed-rt[export]'") from error
    options = ExportOptions(
        output=args.output,
        force=args.force,
        overrides=Overrides(
            pooling=_pooling(args.pooling) if args.pooling is not None else None,
            normalize=args.normalize,
            max_length=args.max_length,
            prompts=_prompts(args.prompt) if args.prompt else None,
            default_prompt_name=args.default_prompt,
            truncate_dim=args.truncate_dim,
        ),
        task=args.task,
        opset=DEFAULT_OPSET if args.opset is None else args.opset,
        targets=tuple(args.target.split(",")),
        precisions=tuple(args.precision.split(",")) if args.precision is not None else None,
        calibration=args.calibration,
        min_cosine=INT8_MIN_COSINE if args.min_cosine is None else args.min_cosine,
        exporter=args.exporter,
        verify=args.verify,
        trust_remote_code=args.trust_remote_code,
        external_data=args.external_data,
        layout=args.layout,
        tokens=args.tokens,
        show_progress=not args.quiet and sys.stderr.isatty(),
        revision=args.revision,
        token=args.token,
        cache_dir=args.cache_dir,
        local_files_only=args.local_files_only,
        base=args.base,
        adapter=args.adapter,
    )
    done = export(args.checkpoint, options, Steps(show=not args.quiet))
    if not args.quiet:
        print(_summary(done))
    elif done.refused:
        print(*(f"left out: {refused}" for refused in done.refused), sep="\n", file=sys.stderr)
    return ParityError.exit_code if done.refused else 0


def _pooling(value: str) -> tuple[str, ...]:
    from fastembed_rt_export.checkpoint.read import parse_pooling

    try:
        return parse_pooling(tuple(value.split("+")))
    except UnsupportedCheckpointError as error:  # what it is in a checkpoint
        raise InvalidInputError(f"--pooling {value}: {error}") from error


def _prompts(entries: list[str]) -> dict[str, str]:
    prompts = {}
    for entry in entries:
        name, equals, prompt = entry.partition("=")
        if not equals or not name:
            raise InvalidInputError(f"--prompt {entry!r} is not NAME=TEXT, for example --prompt 'query=query: '")
        prompts[name] = prompt
    return prompts


def plain_prompt(facts: Manifest) -> str:
    """What stands before a text that comes without a prompt's name, which users of other tools may not expect."""
    name = facts.default_prompt_name
    if name is None:
        return "puts no prompt before a text"
    return f"puts {json.dumps(facts.prompts[name], ensure_ascii=False)} before each text (prompt {name!r})"


def _summary(done: Exported) -> str:
    from fastembed_rt_export.directory.card import outline, prompts_line
    from fastembed_rt_export.gate.report import describe, details

    made = done.manifest
    lines = [f"{done.directory}"]
    width = max(len(record.file) for record in made.files)
    lines += [f"  {record.file:<{width}}  {readable(record.size):>9}" for record in made.files]
    lines.append(f"  {' -> '.join(made.modules)}")
    lines.append(f"  {outline(made)}")
    lines += [f"  {line}" for line in (prompts_line(made),) if line]
    lines += [f"  changed: {key} = {value}" for key, value in made.overrides.items()]
    lines += [f"  note: {note}" for note in made.notes]
    lines.append(f"  parity: {describe(made.parity)}")
    lines += [f"    {line}" for line in details(made.parity)]
    lines.append(f"  {done.seconds:.1f} s{_peak_memory()}")
    lines += [f"  left out: {refused}" for refused in made.refused]
    return "\n".join(lines)


def _peak_memory() -> str:
    most = memory.peak()
    return "" if most is None else f", peak memory {most / 1e6:.0f} MB"
