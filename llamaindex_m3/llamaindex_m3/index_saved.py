"""How ``M3Index`` is saved, loaded and pickled, by its own and by the managed index's names."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from llama_index.core.indices.base import BaseIndex
from llama_index.core.schema import NodeWithScore
from llama_index.core.settings import Settings
from typing_extensions import Self

from llamaindex_m3.index_options import REPLACED, same_or_either
from llamaindex_m3.index_storage import M3IndexDict, load_storage
from llamaindex_m3.nodes import NodeCollection, new_nodes
from llamaindex_m3.options import refuse_replaced


class SavedIndex(BaseIndex[M3IndexDict]):
    """An index that is saved, loaded and pickled; the base of ``M3Index``."""

    index_struct_cls = M3IndexDict

    def __getstate__(self) -> dict[str, Any]:
        # LlamaIndex's settings are those of the process: its own node parser, for one, would
        # download a tokenizer where it is unpickled.
        state = dict(self.__dict__)
        for name, setting in self._settings().items():
            if state[name] is setting:
                state[name] = None
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = {name: value for name, value in state.items() if value is not None}
        self.__dict__.update(state | self._settings() | kept)

    @staticmethod
    def _settings() -> dict[str, Any]:
        return {
            "_transformations": Settings.transformations,
            "_callback_manager": Settings.callback_manager,
        }

    @classmethod
    def from_persist_dir(
        cls, persist_dir: str | PathLike[str], index_id: str | None = None, **options: Any
    ) -> Self:
        """Read what ``storage_context.persist`` has written.

        Args:
            persist_dir: The folder.
            index_id: Of the index, where the storage context had several of this class.
            **options: Of the constructor; the model must be the one it was made with.

        Returns:
            The index.

        Raises:
            FileNotFoundError: There is no such folder, or it is not complete.
            IndexFileError: It holds no such index, or several and no id was given; files are cut,
                damaged or do not belong together; or the model or its options are others.
        """
        index_id = same_or_either(
            "index_id and index_name", index_id, options.pop("index_name", None)
        )
        own = inspect.signature(cls.__init__).parameters.keys() - {"model_name", "encoder"}
        own -= {"multi_vectors", "nodes", "index_struct", "storage_context", "options"}
        options = refuse_replaced(options, REPLACED)
        nodes = cls._new_nodes(
            {name: value for name, value in options.items() if name not in own - {"show_progress"}}
        )
        storage, struct = load_storage(Path(persist_dir), index_id, nodes)
        others = {name: value for name, value in options.items() if name in own}
        return cls(index_struct=struct, storage_context=storage, **others)

    @classmethod
    def load_from_disk(
        cls,
        persist_dir: str | PathLike[str],
        model_name: str | None = None,
        index_name: str = "",
        weights_for_different_modes: Sequence[float] | None = None,
        **options: Any,
    ) -> Self:
        """Do ``from_persist_dir`` under the managed index's names.

        Args:
            persist_dir: The folder; what the managed index itself has saved is an error.
            model_name: The model.
            index_name: Of the index, where there are several.
            weights_for_different_modes: Of the hybrid mode.
            **options: As of ``from_persist_dir``.

        Returns:
            The index.
        """
        if model_name is not None:
            options["model_name"] = model_name
        options["weights_for_different_modes"] = weights_for_different_modes
        return cls.from_persist_dir(persist_dir, index_name or None, **options)

    def persist(self, persist_dir: str | PathLike[str]) -> None:
        """Save the whole storage context.

        Args:
            persist_dir: The folder; made if need be.
        """
        self._storage_context.persist(Path(persist_dir))

    def query(self, query_str: str, top_k: int = 10) -> list[NodeWithScore]:
        """Retrieve, under the managed index's name for it.

        Args:
            query_str: The query.
            top_k: How many nodes at most.

        Returns:
            Copies of the nodes with their scores, best first.
        """
        return self.as_retriever(similarity_top_k=top_k).retrieve(query_str)

    @classmethod
    def _new_nodes(cls, options: Mapping[str, Any]) -> NodeCollection:
        options = dict(options)
        multi_vectors = options.pop("multi_vectors", None)
        stored = ("dense", "sparse") if multi_vectors is False else ("dense", "sparse", "colbert")
        return new_nodes(cls, stored=stored, **options)
