"""``HuggingFaceBgeEmbeddings`` of langchain-community over this package's encoder."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from langchain_core._api import LangChainDeprecationWarning
from langchain_core.embeddings import Embeddings
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

if TYPE_CHECKING:
    from m3_core import Encoder
    from m3_core.encoder.cached import CachedEncoder

DEFAULT_BGE_MODEL = "BAAI/bge-large-en"
DEFAULT_QUERY_BGE_INSTRUCTION_EN = "Represent this question for searching relevant passages: "
DEFAULT_QUERY_BGE_INSTRUCTION_ZH = "为这个句子生成表示以用于检索相关文章："

# Popped out of the field, as langchain-community does.
_NETWORK_KEYS = ("torch_dtype", "attn_implementation", "provider", "file_name", "export")
_LOADING_KEYS = ("device", "trust_remote_code", "revision", "token", "local_files_only")
# These choose a runtime or a speed there; vectors are the same with or without them.
_IDLE_MODEL_KEYS = ("attn_implementation", "similarity_fn_name")
_IDLE_ENCODE_KEYS = ("batch_size", "convert_to_numpy", "convert_to_tensor", "device")
# Other runtimes, other weights or other outputs: taken only with the value that changes nothing.
_FIXED_MODEL_KEYS: Mapping[str, Any] = {
    "backend": "torch",
    "provider": None,
    "file_name": None,
    "export": None,
}
_FIXED_ENCODE_KEYS: Mapping[str, Any] = {
    "output_value": "sentence_embedding",
    "precision": "float32",
}


class HuggingFaceBgeEmbeddings(BaseModel, Embeddings):
    """Replace langchain-community's class of this name: change the import, nothing else.

    Keywords, fields, defaults, errors, warnings and vectors are those of the original, with these
    exceptions, all of them about instructions:

    * M3 was trained without instructions and gets none unless one is passed; the original puts
      the English one before M3's queries.
    * With ``"-zh"`` in the model's name the original replaces even an instruction that was
      passed; here the one that was passed stands.

    Both warn. To have the original's vectors also there, set
    ``HuggingFaceBgeEmbeddings.original_instructions = True`` (or do so in a subclass).

    ``client`` is the ``m3_core.Encoder``. Data type is float32 unless
    ``model_kwargs={"torch_dtype": ...}`` says otherwise. ``batch_size`` is accepted and has no
    effect: batches are made by tokens.

    Example:
        .. code-block:: python

            embeddings = HuggingFaceBgeEmbeddings(
                model_name="BAAI/bge-small-en-v1.5",
                model_kwargs={"device": "cpu"},
                encode_kwargs={"normalize_embeddings": True},
            )
            vector = embeddings.embed_query("What do pandas eat?")
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    original_instructions: ClassVar[bool] = False
    """Choose instructions wholly as langchain-community does."""

    client: Any = None
    """The encoder; set by the constructor."""
    model_name: str = DEFAULT_BGE_MODEL
    """Local folder or hub repository."""
    cache_folder: str | None = None
    """Where downloads are kept; also set by ``SENTENCE_TRANSFORMERS_HOME``."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of loading: ``device``, ``trust_remote_code``, ``revision``, ``token``,
    ``local_files_only``, ``truncate_dim``, ``torch_dtype``."""
    encode_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Options of encoding: ``normalize_embeddings``, ``prompt``, ``prompt_name``."""
    query_instruction: str = DEFAULT_QUERY_BGE_INSTRUCTION_EN
    """Put before queries."""
    embed_instruction: str = ""
    """Put before documents."""
    show_progress: bool = False
    """Show a progress bar."""

    _encodings: Any = PrivateAttr(default=None)
    _kept: int | None = PrivateAttr(default=None)

    def __init__(self, **kwargs: Any) -> None:
        """Load the model, or take it if it is loaded already.

        Args:
            **kwargs: The fields.

        Raises:
            ValidationError: A field is unknown or of the wrong type.
            TypeError: ``model_kwargs`` or ``encode_kwargs`` has an unknown key.
            ValueError: One of their values is not supported.
        """
        super().__init__(**kwargs)
        if "model_name" not in kwargs:
            _deprecated(
                f"Default values for {type(self).__name__}.model_name were deprecated in LangChain "
                "0.2.5. Explicitly pass a model_name to the constructor instead."
            )
        self._load()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed documents, newlines replaced by spaces.

        Args:
            texts: The documents.

        Returns:
            One vector a document, as Python floats.
        """
        documents = [_one_line(text) for text in texts]
        reps = self._source.documents(documents, show_progress=self.show_progress)
        return [vector[: self._kept] for vector in reps.dense_lists()]

    def embed_query(self, text: str) -> list[float]:
        """Embed a query, newlines replaced by spaces, with the query instruction before it.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        reps = self._source.queries([_one_line(text)], show_progress=self.show_progress)
        return reps.dense_lists()[0][: self._kept]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do ``embed_documents`` off the event loop.

        Args:
            texts: The documents.

        Returns:
            One vector a document, as Python floats.
        """
        return await self._source.encoder.run_async(self.embed_documents, texts)

    async def aembed_query(self, text: str) -> list[float]:
        """Do ``embed_query`` off the event loop.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        return await self._source.encoder.run_async(self.embed_query, text)

    @property
    def _source(self) -> CachedEncoder:
        source: CachedEncoder = self._encodings
        return source

    def _load(self) -> None:
        from m3_core.encoder.cached import CachedEncoder
        from m3_core.encoder.registry import shared_encoder

        loading = dict(self.model_kwargs)
        for key in _NETWORK_KEYS:
            self.model_kwargs.pop(key, None)
        truncate_dim, options = _loading_options(loading)
        cache_folder = self.cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME")
        loaded = shared_encoder(self.model_name, cache_folder=cache_folder, **options)
        self._choose_instruction(loaded)
        if "show_progress_bar" in self.encode_kwargs:
            _deprecated(
                "`encode_kwargs['show_progress_bar']` was deprecated in LangChain 0.2.5. Use the "
                f"show_progress field of {type(self).__name__} instead."
            )
            if self.show_progress:
                warnings.warn(
                    "Both encode_kwargs['show_progress_bar'] and show_progress are set; "
                    "encode_kwargs['show_progress_bar'] takes precedence",
                    stacklevel=3,
                )
            self.show_progress = self.encode_kwargs.pop("show_progress_bar")
        prompt, normalize = _encoding_options(self.encode_kwargs, loaded)
        if normalize and not self.encode_kwargs.get("normalize_embeddings"):
            # The checkpoint's own module scales the whole vector, and what is cut stays shorter.
            self._kept, truncate_dim = truncate_dim, None
        self.client = loaded.with_options(
            query_instruction=prompt + self.query_instruction,
            document_instruction=prompt + self.embed_instruction,
            truncate_dim=truncate_dim,
            normalize=normalize,
        )
        self._encodings = CachedEncoder(self.client, ["dense"])

    def _choose_instruction(self, loaded: Encoder) -> None:
        given = "query_instruction" in self.model_fields_set
        how = f"Set {type(self).__name__}.original_instructions = True for the original's vectors."
        if "-zh" in self.model_name:
            passed = self.query_instruction
            if not given or self.original_instructions:
                self.query_instruction = DEFAULT_QUERY_BGE_INSTRUCTION_ZH
            elif passed != DEFAULT_QUERY_BGE_INSTRUCTION_ZH:
                warnings.warn(
                    f"query_instruction={passed!r} is used as it was passed; langchain-community "
                    f"replaces it for models with '-zh' in their name. {how}",
                    stacklevel=4,
                )
        elif "sparse" in loaded.representations and not (given or self.original_instructions):
            self.query_instruction = ""
            warnings.warn(
                f"{self.model_name!r} is an M3 model and takes no instruction: queries get none. "
                "langchain-community puts its English instruction before them. Pass "
                f"query_instruction='' to have this without a warning. {how}",
                stacklevel=4,
            )


def _deprecated(message: str) -> None:
    warnings.warn(LangChainDeprecationWarning(message), stacklevel=4)


def _one_line(text: str) -> str:
    # What is no string is left to the encoder, whose error names the text.
    return text.replace("\n", " ") if isinstance(text, str) else text


def _refuse_unknown(what: str, keys: Mapping[str, Any], known: tuple[str, ...]) -> None:
    unknown = sorted(set(keys) - set(known))
    if unknown:
        raise TypeError(
            f"{what} has unknown keys: {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )


def _refuse_other_values(what: str, found: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    for key, only in fixed.items():
        if found.get(key, only) != only:
            raise ValueError(f"{what}[{key!r}] is {found[key]!r}; only {only!r} is supported")


def _loading_options(found: dict[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """``truncate_dim`` and the options of ``shared_encoder``."""
    known = (*_LOADING_KEYS, *_IDLE_MODEL_KEYS, *_FIXED_MODEL_KEYS, "torch_dtype", "truncate_dim")
    _refuse_unknown("model_kwargs", found, known)
    _refuse_other_values("model_kwargs", found, _FIXED_MODEL_KEYS)
    options = {key: found[key] for key in _LOADING_KEYS if found.get(key) is not None}
    options["dtype"] = found.get("torch_dtype") or "float32"
    return found.get("truncate_dim"), options


def _encoding_options(found: dict[str, Any], encoder: Encoder) -> tuple[str, bool]:
    """What stands before every text, and whether vectors are scaled to length 1."""
    asked = ("normalize_embeddings", "prompt", "prompt_name")
    _refuse_unknown("encode_kwargs", found, (*asked, *_IDLE_ENCODE_KEYS, *_FIXED_ENCODE_KEYS))
    _refuse_other_values("encode_kwargs", found, _FIXED_ENCODE_KEYS)
    checkpoint = encoder.model.checkpoint
    prompt, name = found.get("prompt"), found.get("prompt_name")
    if prompt is None and name is not None:
        if name not in checkpoint.prompts:
            raise ValueError(
                f"encode_kwargs['prompt_name'] is {name!r}; {encoder.name!r} has the prompts "
                f"{sorted(checkpoint.prompts)}"
            )
        prompt = checkpoint.prompts[name]
    modules = checkpoint.folder / "modules.json"
    listed = json.loads(modules.read_text(encoding="utf-8")) if modules.is_file() else []
    # A checkpoint that lists this module scales its vectors whatever encode_kwargs says.
    normalizes = any(str(module.get("type", "")).endswith("Normalize") for module in listed)
    return prompt or "", normalizes or bool(found.get("normalize_embeddings"))
