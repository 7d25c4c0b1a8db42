"""``m3-retrieval train``, ``distill``, ``mine`` and ``mix``."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from m3_core.cli.commands import Command, fields_of, new_app, write
from m3_core.training import Distillation, MiningOptions, TrainOptions

app = new_app()

TRAIN = """\
Fine-tune all three representations on JSON lines.

Each line is {"query": "…", "pos": ["…"], "neg": ["…"]}; scores of a teacher go into pos_scores and
neg_scores. With --resume the same command goes on where it was stopped.

Examples:
  m3-retrieval train --model BAAI/bge-m3 --data a.jsonl b.jsonl --output tuned
  m3-retrieval train --model m3-small --data a.jsonl --output tuned --cpu
"""

DISTILL = r"""Teach a model with a larger encoder.

Examples:
  m3-retrieval distill --model m3-small --teacher BAAI/bge-m3 --data a.jsonl \
    --output small
"""

MINE = r"""Fill in hard negatives.

Documents that are found for a query and are none of its positives, from the data's own documents or
those of --pool.

Examples:
  m3-retrieval mine --model BAAI/bge-m3 --data a.jsonl --output mined.jsonl
  m3-retrieval mine --model m3-small --data a.jsonl --pool corpus.jsonl \
    --output mined.jsonl
"""

MIX = """\
Average checkpoints of one architecture (LM-Cocktail).

Examples:
  m3-retrieval mix BAAI/bge-m3 tuned --weights 0.5 0.5 --output mixed
"""

Model = Annotated[str, Option(help="A folder or a hub repository.")]
Data = Annotated[list[str], Option(help="JSON lines with query and pos.")]


@app.command(cls=Command, help=TRAIN)
@fields_of(TrainOptions)
def train(options: TrainOptions) -> None:
    """Fine-tune all three representations on JSON lines."""
    _train(options, None)


@app.command(cls=Command, help=DISTILL)
@fields_of(Distillation, {"weights": "score_weights", "temperature": "score_temperature"})
@fields_of(TrainOptions)
def distill(teacher: Distillation, options: TrainOptions) -> None:
    """Teach a model with a larger encoder."""
    _train(options, teacher)


def _train(options: TrainOptions, teacher: Distillation | None) -> None:
    from m3_core.training import train

    result = train(options, teacher)
    write({"model": str(result.folder), "steps": result.steps})


@app.command(cls=Command, help=MINE)
@fields_of(MiningOptions)
def mine(
    options: MiningOptions,
    *,
    model: Model,
    data: Data,
    output: Annotated[str, Option(help="File of the examples with their negatives.")],
    pool: Annotated[
        str | None, Option(help="JSON lines with text: documents to choose from.")
    ] = None,
) -> None:
    """Fill in hard negatives."""
    from m3_core.encoder import Encoder
    from m3_core.training import mine_files

    count = mine_files(Encoder.from_pretrained(model), data, output, pool, options)
    write({"output": output, "examples": count})


@app.command(cls=Command, help=MIX)
def mix(
    checkpoints: Annotated[list[str], Argument(help="Folders or hub repositories.")],
    *,
    weights: Annotated[list[float], Option(help="One for each checkpoint.")],
    output: Annotated[str, Option(help="Folder of the mixed model.")],
) -> None:
    """Average checkpoints of one architecture (LM-Cocktail)."""
    from m3_core.training import mix_checkpoints

    write({"model": str(mix_checkpoints(checkpoints, weights, output))})
