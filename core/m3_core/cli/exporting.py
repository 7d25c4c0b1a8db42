"""``m3-retrieval export``."""

from __future__ import annotations

from typing import Annotated

from typer import Argument, Option

from m3_core.cli.commands import new_app, write

app = new_app()


EXPORT = """\
Write a model as a plain folder.

FlagEmbedding and sentence-transformers load it.

Examples:
  m3-retrieval export m3-small models/m3-small
"""


@app.command(help=EXPORT)
def export(
    model: Annotated[str, Argument(help="An embedded model, a folder or a hub repository.")],
    folder: Annotated[str, Argument(help="Where to; an existing checkpoint there is replaced.")],
    *,
    dtype: Annotated[str, Option(help="Of the weights: float32, float16 or bfloat16.")] = "float32",
) -> None:
    """Write a model as a plain folder."""
    import torch

    from m3_core.training import TrainableM3, save_checkpoint

    dtypes = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16")}
    if dtype not in dtypes:
        raise ValueError(f"--dtype is {dtype!r}; it must be one of {', '.join(dtypes)}")
    trainable = TrainableM3.from_pretrained(model)
    write({"model": str(save_checkpoint(trainable, folder, dtype=dtypes[dtype]))})
