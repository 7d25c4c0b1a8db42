"""The files of a saved storage context with ``M3Index`` in it: whole states, one after another.

LlamaIndex writes its own files in place, one after the other: a process that is killed meanwhile
leaves some of them old, some new and one cut. So what it keeps is written again, into one file that
takes the place of the one before in one step, ``m3_index.safetensors``. It names the files with the
nodes of each index, which are written before it under names of their own and never changed; those
of the state before are deleted after it. Only it is read.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from llama_index.core.graph_stores import SimpleGraphStore, SimplePropertyGraphStore
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.storage.docstore.types import DEFAULT_PERSIST_FNAME as DOCSTORE_FNAME
from llama_index.core.storage.index_store import SimpleIndexStore
from llama_index.core.storage.index_store.types import DEFAULT_PERSIST_FNAME as INDEX_STORE_FNAME
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.vector_stores.simple import SimpleVectorStore

from m3_core.errors import IndexFileError
from m3_core.files import open_tensors, write_tensors
from m3_core.saved_folders import locked

logger = logging.getLogger(__name__)

STATE = "m3_index.safetensors"
_FORMAT, _VERSION = "m3-index", "1"
# Of LlamaIndex's vector stores, behind their names.
_VECTORS = "vectors/"
_GRAPH, _PROPERTIES = "graph", "properties"
_NODES = re.compile(r"m3_nodes-[0-9a-f]{16}\.safetensors")
_HALF_NODES = re.compile(r"\.m3_nodes-[0-9a-f]{16}\.safetensors\..*")


@dataclass(frozen=True, slots=True)
class State:
    """A whole state of a storage context.

    Attributes:
        generation: How many states were saved in the folder, this one counted.
        saved: When, in ISO 8601.
        nodes: The file with the nodes of each index, by the name of its vector store.
        storage: All but the nodes.
    """

    generation: int
    saved: str
    nodes: Mapping[str, Path]
    storage: StorageContext


def write_state(folder: Path, storage: StorageContext, nodes: Mapping[str, Any]) -> None:
    """Save a storage context: the last state in the folder is read until this one is whole.

    Several processes and threads may save into one folder; they take turns, and the last wins.

    Args:
        folder: Where to; made if need be.
        storage: The storage context.
        nodes: The ``NodeCollection`` of each index, by the name of its vector store.

    Raises:
        OSError: Something could not be written; the state before is as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder) as is_alone:
        names = {one: f"m3_nodes-{secrets.token_hex(8)}.safetensors" for one in nodes}
        try:
            for one, name in names.items():
                nodes[one].save(folder / name)
            described = {
                "format": _FORMAT,
                "version": _VERSION,
                "generation": str(_generation(folder) + 1),
                "saved": datetime.now(timezone.utc).isoformat(timespec="seconds"),
                "nodes": json.dumps(names),
            }
            parts = {
                name: np.frombuffer(content, np.uint8) for name, content in _parts(storage).items()
            }
            write_tensors(folder / STATE, described, parts)
        except BaseException:
            for name in names.values():
                (folder / name).unlink(missing_ok=True)
            raise
        if is_alone:
            _remove_others(folder, set(names.values()))


@contextmanager
def read_state(folder: Path) -> Iterator[State]:
    """Read the last whole state that was saved in a folder, and say to the log which one it is.

    Args:
        folder: The folder.

    Yields:
        The state. Errors of whoever takes its content for what it is not become ``IndexFileError``.

    Raises:
        FileNotFoundError: The folder holds none.
        IndexFileError: It is cut, damaged, or something else.
    """
    with open_tensors(folder / STATE, "saved M3Index", _FORMAT, _VERSION) as file:
        parts = {name: file.read(name, np.uint8, (None,)).tobytes() for name in file.names}
        metadata = file.metadata
        names = json.loads(metadata["nodes"])
        if not all(_NODES.fullmatch(name) for name in names.values()):
            raise ValueError("its files have other names")
        state = State(
            int(metadata["generation"]),
            metadata["saved"],
            {one: folder / name for one, name in names.items()},
            _storage(parts),
        )
        found = f"state {state.generation}, saved at {state.saved}"
        changed = [name for name in (DOCSTORE_FNAME, INDEX_STORE_FNAME) if name in parts]
        changed = [name for name in changed if _differs(folder / name, parts[name])]
        if changed:
            logger.warning(
                "%s: loading the last whole state, %s; %s there is of another one: a save was "
                "interrupted, or another storage context was saved into the folder",
                folder,
                found,
                " and ".join(changed),
            )
        else:
            logger.info("%s: loading %s", folder, found)
        yield state


def _generation(folder: Path) -> int:
    """Of the state in a folder; 0 if there is none that can be read."""
    try:
        with open_tensors(folder / STATE, "saved M3Index", _FORMAT, _VERSION) as file:
            return int(file.metadata["generation"])
    except (FileNotFoundError, IndexFileError):
        return 0


def _remove_others(folder: Path, kept: set[str]) -> None:
    """Delete the nodes of states before, and what writers that are gone have left."""
    for path in folder.iterdir():
        is_old = _NODES.fullmatch(path.name) and path.name not in kept
        if is_old or _HALF_NODES.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _parts(storage: StorageContext) -> dict[str, bytes]:
    """What LlamaIndex keeps in memory, as it writes it."""
    parts = {}
    plain = (
        (DOCSTORE_FNAME, storage.docstore, SimpleDocumentStore),
        (INDEX_STORE_FNAME, storage.index_store, SimpleIndexStore),
        (_GRAPH, storage.graph_store, SimpleGraphStore),
    )
    for name, store, kind in plain:
        if isinstance(store, kind):
            parts[name] = json.dumps(store.to_dict()).encode()
    if isinstance(storage.property_graph_store, SimplePropertyGraphStore):
        parts[_PROPERTIES] = storage.property_graph_store.graph.model_dump_json().encode()
    for name, one in storage.vector_stores.items():
        if isinstance(one, SimpleVectorStore):
            parts[f"{_VECTORS}{name}"] = json.dumps(one.to_dict()).encode()
    return parts


def _storage(parts: Mapping[str, bytes]) -> StorageContext:
    read = {name: json.loads(content) for name, content in parts.items()}
    absent = [name for name in (DOCSTORE_FNAME, INDEX_STORE_FNAME) if name not in read]
    if absent:
        raise ValueError(
            f"{' and '.join(absent)} is not in it: the storage context kept that in another place "
            "than memory, from where an index cannot be loaded"
        )
    graph = read.get(_GRAPH)
    properties = read.get(_PROPERTIES)
    return StorageContext(
        docstore=SimpleDocumentStore.from_dict(read[DOCSTORE_FNAME]),
        index_store=SimpleIndexStore.from_dict(read[INDEX_STORE_FNAME]),
        vector_stores={
            name.removeprefix(_VECTORS): SimpleVectorStore.from_dict(one)
            for name, one in read.items()
            if name.startswith(_VECTORS)
        },
        graph_store=SimpleGraphStore() if graph is None else SimpleGraphStore.from_dict(graph),
        property_graph_store=(
            None if properties is None else SimplePropertyGraphStore.from_dict(properties)
        ),
    )


def _differs(path: Path, content: bytes) -> bool:
    """Whether a file is there and holds something else."""
    try:
        return path.stat().st_size != len(content) or path.read_bytes() != content
    except FileNotFoundError:
        # LlamaIndex was asked for another name.
        return False
