"""Encoding a corpus into Parquet, on this machine or with Ray."""

from __future__ import annotations

import shutil
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from m3_core.bulk.ahead import ahead
from m3_core.bulk.dataset import EncodedDataset
from m3_core.bulk.inputs import Source
from m3_core.bulk.jobs import STDIN, begin, held, tidy
from m3_core.bulk.options import EncodeOptions
from m3_core.bulk.plan import Reader, documents_of
from m3_core.bulk.progress import Progress
from m3_core.bulk.recorded import RecordedModel
from m3_core.bulk.shards import table_of, write_shard
from m3_core.encoder import PARTS, TextEncoder
from m3_core.files import replacing_file

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from m3_core.bulk.jobs import Job
    from m3_core.bulk.on_ray import RayOptions
    from m3_core.bulk.plan import Document, Shard
    from m3_core.bulk.rows import Row
    from m3_core.representations import Representations

# Documents encoded at a time: so many, and so many characters, with the widest multi-vectors some
# hundred MiB.
CHUNK_ROWS, CHUNK_CHARACTERS = 1024, 1 << 18


def encode_dataset(
    source: str | os.PathLike[str] | BinaryIO,
    folder: str | os.PathLike[str],
    encoder: TextEncoder | Callable[[], TextEncoder] | str,
    options: EncodeOptions | None = None,
    *,
    ray: RayOptions | None = None,
    overwrite: bool = False,
    show_progress: bool | None = False,
) -> EncodedDataset:
    """Encode a corpus of any size into a folder of Parquet files.

    The whole corpus is checked before anything is encoded. Each file is written whole or not at
    all: after a kill, an interrupt or an error, the same call goes on with those that are
    missing. In memory are only the documents that are being encoded and, to see that no id comes
    twice, eight bytes a document. See ``docs/guides/bulk.md`` for the files.

    Args:
        source: JSON lines, CSV (``.tsv``: with tabs) or Parquet, a folder of these, a folder of
            text files, or a binary stream (JSON lines, unless options say otherwise), which is
            first copied into the folder.
        folder: Where to write; made if need be.
        encoder: An encoder, a function that makes one, or the name of a model. With Ray: a
            function or a name, for each process loads its own.
        options: How rows are read, and what is written of them.
        ray: Encode with Ray instead of in this process; all machines must see ``source`` and
            ``folder`` under these names.
        overwrite: Delete the job that was begun in the folder, and begin anew.
        show_progress: Show progress bars; ``None``: where standard error is a terminal.

    Returns:
        The encoded corpus.

    Raises:
        FileNotFoundError: There is no such corpus.
        DatasetError: A row holds no document (the error names file and line), the folder holds
            another job, the input or the model is not that of the job that was begun, or another
            process is at it.
        MissingRepresentationError: The model does not give what is asked for.
        M3Error: Encoding failed; the files that are whole stay.
    """
    chosen = EncodeOptions() if options is None else options
    target, progress = Path(folder).absolute(), Progress(show_progress)
    make = _maker(encoder)
    if ray is not None:
        from m3_core.bulk import on_ray
        from m3_core.ray_cluster import connected

        on_ray.check(encoder, source)
        with connected(ray.address, "encoding with Ray"), held(target):
            found = Source.find(Path(_path(source)), chosen.format)
            model = on_ray.describe(make, chosen, ray)
            job = begin(target, found, model, chosen, progress, overwrite=overwrite)
            run = partial(on_ray.encode_shards, make=make, ray_options=ray)
            _run(job, found, chosen, progress, run)
        return EncodedDataset.open(target)
    with held(target), _found(source, target, chosen) as found:
        made = make()
        model = RecordedModel.of(made, chosen.representations)
        job = begin(target, found, model, chosen, progress, overwrite=overwrite)
        _run(job, found, chosen, progress, partial(encode_shards, encoder=made))
    return EncodedDataset.open(target)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Documents that are encoded together.

    Attributes:
        shard: Whose.
        documents: The documents.
        is_last: No more of the shard follow.
    """

    shard: Shard
    documents: Sequence[Document]
    is_last: bool


def encode_shards(
    job: Job, source: Source, options: EncodeOptions, shards: Sequence[Shard], encoder: TextEncoder
) -> Iterator[int]:
    """Encode shards and write them.

    Args:
        job: The job.
        source: The corpus.
        options: Of the job.
        shards: Those to encode.
        encoder: The encoder.

    Yields:
        Numbers of documents, as they are written.
    """
    schema, parts = job.schema, job.model.representations
    flags = {
        flag: part in parts
        for part, flag in zip(
            PARTS, ("return_dense", "return_sparse", "return_colbert_vecs"), strict=True
        )
    }

    async def encoded(chunk: Chunk) -> Representations:
        texts = [one.text for one in chunk.documents]
        return await encoder.aencode_documents(texts, **flags)

    reader = Reader(options, job.id_column)
    with closing(ahead(_chunks(source, shards, reader), encoded)) as results:
        for shard in shards:
            tables = (
                table_of(chunk.documents, reps, schema, job.columns)
                for chunk, reps in _of_one_shard(results)
            )
            yield write_shard(job.path(shard), schema, tables)


def _of_one_shard(
    results: Iterator[tuple[Chunk, Representations]],
) -> Iterator[tuple[Chunk, Representations]]:
    for chunk, reps in results:
        yield chunk, reps
        if chunk.is_last:
            return


def _chunks(source: Source, shards: Iterable[Shard], reader: Reader) -> Iterator[Chunk]:
    rows: Iterator[Row] = iter(())
    following = -1
    for shard in shards:
        # One that comes right behind another is read on, not looked for.
        if shard.start.number != following:
            rows = source.rows(shard.start)
        following = shard.start.number + shard.span
        documents: list[Document] = []
        characters = 0
        for document in documents_of(shard, rows, reader):
            if len(documents) >= CHUNK_ROWS or characters >= CHUNK_CHARACTERS:
                yield Chunk(shard, documents, is_last=False)
                documents, characters = [], 0
            documents.append(document)
            characters += len(document.text)
        # Once all of them were seen to be those that were planned.
        yield Chunk(shard, documents, is_last=True)


def _run(
    job: Job,
    source: Source,
    options: EncodeOptions,
    progress: Progress,
    encode: Callable[..., Iterator[int]],
) -> None:
    tidy(job)
    missing = job.missing()
    done = job.rows - sum(shard.rows for shard in missing)
    with progress.bar("Encoding", job.rows, "text", done) as advance:
        if missing:
            for count in encode(job, source, options, missing):
                advance(count)


def _maker(
    encoder: TextEncoder | Callable[[], TextEncoder] | str,
) -> Callable[[], TextEncoder]:
    if isinstance(encoder, str):
        return partial(_load, encoder)
    if isinstance(encoder, TextEncoder) and not isinstance(encoder, type):
        return lambda: encoder
    if not callable(encoder):
        raise TypeError(
            "encoder must be an m3_core.TextEncoder, a function that makes one, or the name of a "
            f"model; got {type(encoder).__name__}"
        )
    return encoder


def _load(name: str) -> TextEncoder:
    from m3_core.encoder import Encoder

    return Encoder.from_pretrained(name)


def _path(source: Any) -> str | os.PathLike[str]:
    if hasattr(source, "read"):
        raise ValueError("a stream can be read by one process alone: with Ray, give a file")
    path: str | os.PathLike[str] = source
    return path


@contextmanager
def _found(source: Any, folder: Path, options: EncodeOptions) -> Iterator[Source]:
    if not hasattr(source, "read"):
        yield Source.find(Path(_path(source)), options.format)
        return
    path = folder / STDIN
    with replacing_file(path) as file:
        shutil.copyfileobj(source, file)
    try:
        yield Source.find(path, "jsonl" if options.format == "auto" else options.format)
    finally:
        path.unlink(missing_ok=True)
