"""The ``m3-retrieval`` command: train, distill, mine, mix, evaluate."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from m3_core.errors import M3Error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: Those after the command's name; the process's own if ``None``.

    Returns:
        0, or 1 after an error, which is written to standard error.
    """
    parsed = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        parsed.run(parsed)
    except (M3Error, ValueError) as error:
        sys.stderr.write(f"m3-retrieval {parsed.command}: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    from m3_core.training.finetune import Distillation, TrainOptions
    from m3_core.training.mining import MiningOptions

    parser = argparse.ArgumentParser(prog="m3-retrieval", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(name: str, run: Callable[[Any], None], text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run)
        return made

    train = command("train", _train, "Fine-tune all three representations on JSON lines.")
    _add_fields(train, TrainOptions)
    distill = command("distill", _distill, "Teach a model with a larger encoder.")
    _add_fields(distill, TrainOptions)
    _add_fields(distill, Distillation, skip=("weights", "temperature"))
    distill.add_argument("--score-weights", type=float, nargs=3, default=(1.0, 1.0, 1.0))
    distill.add_argument("--score-temperature", type=float, default=0.05)
    mine = command("mine", _mine, "Fill in hard negatives.")
    mine.add_argument("--model", required=True)
    mine.add_argument("--data", nargs="+", required=True, help="JSON lines with query and pos")
    mine.add_argument("--output", required=True)
    mine.add_argument("--pool", help="JSON lines with text: documents to choose from")
    _add_fields(mine, MiningOptions)
    mix = command("mix", _mix, "Average checkpoints of one architecture (LM-Cocktail).")
    mix.add_argument("checkpoints", nargs="+")
    mix.add_argument("--weights", type=float, nargs="+", required=True)
    mix.add_argument("--output", required=True)
    evaluate = command("evaluate", _evaluate, "Measure retrieval on JSON lines.")
    evaluate.add_argument("--model", required=True)
    evaluate.add_argument("--data", nargs="+", required=True, help="JSON lines with query and pos")
    evaluate.add_argument("--device")
    evaluate.add_argument("--dtype", default="auto")
    return parser


def _add_fields(
    parser: argparse.ArgumentParser, options: type[Any], skip: Sequence[str] = ()
) -> None:
    """Make an argument of each field of a dataclass, of its type and with its default."""
    from m3_core.training.options import choices

    hints = get_type_hints(options)
    texts = _descriptions(options)
    for entry in dataclasses.fields(options):
        if entry.name in skip:
            continue
        flag = f"--{entry.name.replace('_', '-')}"
        missing = entry.default is dataclasses.MISSING
        choice: dict[str, Any] = {"required": missing, "help": texts.get(entry.name)}
        if not missing:
            choice["default"] = entry.default
        hint = hints[entry.name]
        if values := choices(hint):
            choice["choices"] = values
        if hint is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **choice)
        elif get_origin(hint) is tuple:
            parser.add_argument(flag, nargs="+", **choice)
        else:
            kinds = [kind for kind in (hint, *get_args(hint)) if kind in (int, float)]
            parser.add_argument(flag, type=kinds[0] if kinds else str, **choice)


def _descriptions(options: type[Any]) -> dict[str, str]:
    """What the docstring says of each field."""
    found: dict[str, str] = {}
    name = ""
    for line in (options.__doc__ or "").partition("Attributes:")[2].splitlines():
        if line.startswith(" " * 8) and not line.startswith(" " * 9) and ": " in line:
            name, _, text = line.strip().partition(": ")
            found[name] = text
        elif name and line.strip():
            found[name] += f" {line.strip()}"
    return {name: text.replace("%", "%%").replace("``", "") for name, text in found.items()}


def _values(options: type[Any], parsed: argparse.Namespace) -> dict[str, Any]:
    values = {
        entry.name: getattr(parsed, entry.name)
        for entry in dataclasses.fields(options)
        if hasattr(parsed, entry.name)
    }
    return {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}


def _train(parsed: argparse.Namespace) -> None:
    from m3_core.training.finetune import TrainOptions, train

    result = train(TrainOptions(**_values(TrainOptions, parsed)))
    _write({"model": str(result.folder), "steps": result.steps})


def _distill(parsed: argparse.Namespace) -> None:
    from m3_core.training.finetune import Distillation, TrainOptions, train

    plan = _values(Distillation, parsed) | {
        "weights": tuple(parsed.score_weights),
        "temperature": parsed.score_temperature,
    }
    options = TrainOptions(**_values(TrainOptions, parsed))
    result = train(options, Distillation(**plan))
    _write({"model": str(result.folder), "steps": result.steps})


def _mine(parsed: argparse.Namespace) -> None:
    from m3_core.encoder.encoder import Encoder
    from m3_core.training.mining import MiningOptions, mine_files

    options = MiningOptions(**_values(MiningOptions, parsed))
    encoder = Encoder.from_pretrained(parsed.model)
    count = mine_files(encoder, parsed.data, parsed.output, parsed.pool, options)
    _write({"output": parsed.output, "examples": count})


def _mix(parsed: argparse.Namespace) -> None:
    from m3_core.training.cocktail import mix_checkpoints

    folder = mix_checkpoints(parsed.checkpoints, parsed.weights, parsed.output)
    _write({"model": str(folder)})


def _evaluate(parsed: argparse.Namespace) -> None:
    from m3_core.encoder.encoder import Encoder
    from m3_core.training.data import find_files, read_lines
    from m3_core.training.evaluation import evaluate_encoder

    examples = list(read_lines(find_files(parsed.data)))
    encoder = Encoder.from_pretrained(parsed.model, device=parsed.device, dtype=parsed.dtype)
    _write(evaluate_encoder(encoder, examples))


def _write(values: Any) -> None:
    sys.stdout.write(json.dumps(values, ensure_ascii=False, indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
