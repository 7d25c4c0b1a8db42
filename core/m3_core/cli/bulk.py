"""``m3-retrieval encode`` and ``load``."""

from __future__ import annotations

import importlib
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, BadParameter, Exit, Option

from m3_core.cli.commands import Command, new_app, write
from m3_core.extras import needs_extra

if TYPE_CHECKING:
    from collections.abc import Callable

    from m3_core.encoder import TextEncoder

app = new_app()

# Of a shell whose command was interrupted.
_INTERRUPTED = 130

Parts = Annotated[
    list[str] | None, Option(help="Of dense, sparse and colbert; by default all there are.")
]


BaseUrl = Annotated[str | None, Option(help="Ask the server there instead of loading the model.")]
ServerKey = Annotated[
    str | None, Option(help="That server's API key; by default that of M3_API_KEY.")
]


@app.command(cls=Command)
def encode(
    source: Annotated[
        str,
        Argument(
            metavar="IN",
            help="JSON lines, CSV, Parquet, or a folder of such or of text files; - for "
            "standard input.",
        ),
    ],
    folder: Annotated[str, Argument(metavar="OUT", help="Folder for the Parquet files.")],
    *,
    model: Annotated[
        str | None, Option(help="An embedded model, a folder or a hub repository; or a server's.")
    ] = None,
    base_url: BaseUrl = None,
    server_key: ServerKey = None,
    representations: Parts = None,
    format: Annotated[str, Option(help="jsonl, csv, parquet, text or auto.")] = "auto",
    text_column: Annotated[
        list[str], Option(help="Of the text; several are joined by a space.")
    ] = ["text"],  # noqa: B006 (typer's default)
    id_column: Annotated[
        str | None, Option(help="Of the id; by default id, else rows are numbered.")
    ] = None,
    metadata_column: Annotated[
        list[str] | None, Option(help="Columns to keep; by default all others.")
    ] = None,
    no_metadata: Annotated[bool, Option("--no-metadata", help="Keep none of them.")] = False,
    no_text: Annotated[
        bool, Option("--no-text", help="Leave the texts out; load needs them.")
    ] = False,
    shard_rows: Annotated[int, Option(help="Documents a file at most.")] = 4096,
    on_error: Annotated[
        str, Option(help="What to do with rows that hold no document: stop or skip.")
    ] = "stop",
    overwrite: Annotated[
        bool, Option("--overwrite", help="Delete the job that is there and begin anew.")
    ] = False,
    device: Annotated[str | None, Option(help="The fastest there is if absent.")] = None,
    dtype: Annotated[
        str | None, Option(help="float32, bfloat16, float16, int8 or auto, which it is if absent.")
    ] = None,
    max_length: Annotated[int | None, Option(help="Tokens a text at most.")] = None,
    document_instruction: Annotated[str | None, Option(help="Put before each text.")] = None,
    ray_address: Annotated[
        str | None,
        Option(help="Encode with Ray: auto, local, or the address of a cluster."),
    ] = None,
    num_actors: Annotated[
        int | None, Option(help="Processes of Ray that encode; by default one a GPU, else one.")
    ] = None,
    num_cpus: Annotated[float | None, Option(help="CPUs of each of them.")] = None,
    num_gpus: Annotated[float | None, Option(help="GPUs of each of them.")] = None,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Encode a corpus into Parquet; the same command again goes on where it was ended."""
    _check_installed()
    from m3_core.bulk import EncodeOptions, RayOptions, encode_dataset

    options = EncodeOptions(
        format=format,  # type: ignore[arg-type]  # checked there
        text_columns=text_column,
        id_column=id_column,
        metadata_columns=[] if no_metadata else metadata_column or None,
        keep_text=not no_text,
        representations=representations or None,
        shard_rows=shard_rows,
        on_error=on_error,  # type: ignore[arg-type]  # checked there
    )
    if ray_address is None and (num_actors or num_cpus or num_gpus):
        raise BadParameter("--num-actors, --num-cpus and --num-gpus are Ray's: add --ray-address")
    ray = None
    if ray_address is not None:
        ray = RayOptions(ray_address, num_actors, num_cpus, num_gpus)
    given = {
        "device": device,
        "dtype": dtype,
        "max_length": max_length,
        "document_instruction": document_instruction,
    }
    _say_once_that_texts_were_cut()
    try:
        dataset = encode_dataset(
            sys.stdin.buffer if source == "-" else source,
            folder,
            _loading(model, base_url, server_key, given),
            options,
            ray=ray,
            overwrite=overwrite,
            show_progress=False if quiet else None,
        )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command again goes on with the files missing\n")
        raise Exit(_INTERRUPTED) from None
    write(
        {
            "output": str(dataset.folder),
            "documents": len(dataset),
            "skipped": dataset.skipped,
            "files": len(dataset.files),
            "model": dataset.model.name,
            "fingerprint": dataset.model.fingerprint,
            "representations": list(dataset.representations),
        }
    )


@app.command(cls=Command)
def load(
    folder: Annotated[str, Argument(metavar="OUT", help="What encode has written.")],
    *,
    to: Annotated[str, Option(help="qdrant:PATH, qdrant:URL or memory:FILE.")],
    representations: Parts = None,
    collection: Annotated[str, Option(help="Of Qdrant.")] = "m3",
    api_key: Annotated[
        str | None, Option(help="Of Qdrant's server.", envvar="QDRANT_API_KEY")
    ] = None,
    long_multi_vectors: Annotated[
        str, Option(help="Those that Qdrant does not take: error or pool.")
    ] = "error",
    model: Annotated[
        str | None, Option(help="Check that this is the model it was encoded with.")
    ] = None,
    base_url: BaseUrl = None,
    server_key: ServerKey = None,
    max_length: Annotated[int | None, Option(help="Of that model.")] = None,
    document_instruction: Annotated[str | None, Option(help="Of that model.")] = None,
    quiet: Annotated[bool, Option("--quiet", help="Show no progress bar.")] = False,
) -> None:
    """Put an encoded corpus into Qdrant, or into a file for stores in memory."""
    _check_installed()
    from m3_core.bulk import load_into_collection, load_into_qdrant

    kind, _, place = to.partition(":")
    if kind not in ("qdrant", "memory") or not place:
        raise BadParameter(f"--to is {to!r}; it must be qdrant:PATH, qdrant:URL or memory:FILE")
    if long_multi_vectors not in ("error", "pool"):
        raise BadParameter(f"--long-multi-vectors is {long_multi_vectors!r}: error or pool")
    given = {"max_length": max_length, "document_instruction": document_instruction}
    shared: dict[str, Any] = {
        "representations": representations or None,
        "encoder": (
            None
            if model is None and base_url is None
            else _loading(model, base_url, server_key, given)()
        ),
        "show_progress": False if quiet else None,
    }
    try:
        if kind == "memory":
            count = load_into_collection(folder, place, **shared)
        else:
            where: dict[str, Any] = {"url": place} if "://" in place else {"path": place}
            if api_key is not None:
                where["api_key"] = api_key
            count = load_into_qdrant(
                folder,
                collection,
                long_multi_vectors=long_multi_vectors,  # type: ignore[arg-type]  # checked above
                **shared,
                **where,
            )
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command again loads everything\n")
        raise Exit(_INTERRUPTED) from None
    write({"to": to, "documents": count})


def _check_installed() -> None:
    with needs_extra("Parquet", "bulk", "pyarrow"):
        importlib.import_module("pyarrow")


def _say_once_that_texts_were_cut() -> None:
    """Not for every batch of them, between the steps of a progress bar."""
    from m3_core.network import TruncationWarning

    show = warnings.showwarning

    def shown(message: Any, category: Any, *others: Any, **more: Any) -> None:
        show(message, category, *others, **more)
        if issubclass(category, TruncationWarning):
            warnings.simplefilter("ignore", TruncationWarning)

    warnings.showwarning = shown


def _loading(
    model: str | None, base_url: str | None, api_key: str | None, options: dict[str, Any]
) -> Callable[[], TextEncoder]:
    """What loads a model, here or in a process of Ray."""
    given = {key: value for key, value in options.items() if value is not None}
    if base_url is not None:
        from m3_core.http_client import key_of_environment

        local = sorted(given.keys() & {"device", "dtype"})
        if local:
            raise BadParameter(f"--{local[0]} is the server's own: leave it out with --base-url")
        # Of the variable: not as an argument, which may hold spaces, but for processes of Ray too.
        return partial(_remote, base_url, api_key or key_of_environment(), model=model, **given)
    if model is None:
        raise BadParameter("name a model by --model, or a server that has one by --base-url")
    # What is a folder here is one there, wherever the process was started.
    place = Path(model)
    return partial(_local, str(place.absolute()) if place.is_dir() else model, **given)


def _local(model: str, **options: Any) -> TextEncoder:
    from m3_core.encoder import Encoder

    return Encoder.from_pretrained(model, **options)


def _remote(url: str, api_key: str | None, **options: Any) -> TextEncoder:
    from m3_core.encoder import RemoteEncoder

    return RemoteEncoder(url, api_key, **options)
