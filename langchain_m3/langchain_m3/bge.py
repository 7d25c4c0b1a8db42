"""``HuggingFaceBgeEmbeddings`` of langchain-community over this package's encoder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from langchain_core._api import LangChainDeprecationWarning
from langchain_core.embeddings import Embeddings
from pydantic import ConfigDict, Field, PrivateAttr, field_serializer

from langchain_m3.huggingface import encoding_options, refuse_other_values, refuse_unknown
from m3_core.adapters import Assignable, Text
from m3_core.encoder import CachedEncoder, aconverted

if TYPE_CHECKING:
    from m3_core import Encoder
    from m3_core.representations import Representations

DEFAULT_BGE_MODEL = "BAAI/bge-large-en"
DEFAULT_QUERY_BGE_INSTRUCTION_EN = "Represent this question for searching relevant passages: "
DEFAULT_QUERY_BGE_INSTRUCTION_ZH = "为这个句子生成表示以用于检索相关文章："

# Popped out of the field, as langchain-community does.
_NETWORK_KEYS = ("torch_dtype", "attn_implementation", "provider", "file_name", "export")
_LOADING_KEYS = ("device", "trust_remote_code", "revision", "token", "local_files_only")
# These choose a runtime or a speed there; vectors are the same with or without them.
_IDLE_MODEL_KEYS = ("attn_implementation", "similarity_fn_name")
# Other runtimes or other weights: taken only with the value that changes nothing.
_FIXED_MODEL_KEYS: Mapping[str, Any] = {
    "backend": "torch",
    "provider": None,
    "file_name": None,
    "export": None,
}


class _Use(NamedTuple):
    """What calls compute with, until a field changes."""

    source: CachedEncoder
    kept: int | None
    asked: tuple[str, str, dict[str, Any], Encoder]

    def vectors(self, reps: Representations) -> list[list[float]]:
        return [vector[: self.kept] for vector in reps.dense_lists()]


class HuggingFaceBgeEmbeddings(Assignable, Embeddings):
    """Replace langchain-community's class of this name: change the import, nothing else.

    Keywords, fields, defaults, errors, warnings and vectors are those of the original, with these
    exceptions, all of them about instructions:

    * M3 was trained without instructions and gets none unless one is passed; the original puts
      the English one before M3's queries.
    * With ``"-zh"`` in the model's name the original replaces even an instruction that was
      passed; here the one that was passed stands.

    Both warn. To have the original's vectors also there, set
    ``HuggingFaceBgeEmbeddings.original_instructions = True`` (or do so in a subclass).

    What the original reads in each call can be assigned here too, and counts from the next call
    on: ``query_instruction``, ``embed_instruction``, ``encode_kwargs`` and the keys in it,
    ``show_progress``, and as ``client`` another ``m3_core.Encoder``. What it reads in the
    constructor alone (``model_name``, ``model_kwargs``, ``cache_folder``) is an error.

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
    """The encoder with the options that are in effect; set by the constructor."""
    model_name: Text = Field(default=DEFAULT_BGE_MODEL, frozen=True)
    """Local folder or hub repository."""
    cache_folder: Text | None = Field(default=None, frozen=True)
    """Where downloads are kept; also set by ``SENTENCE_TRANSFORMERS_HOME``."""
    model_kwargs: dict[str, Any] = Field(default_factory=dict, frozen=True)
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

    _loaded: Any = PrivateAttr(default=None)
    _truncate_dim: int | None = PrivateAttr(default=None)
    _use: _Use | None = PrivateAttr(default=None)

    @field_serializer("client", when_used="json")
    def _name_client(self, client: Any) -> str | None:
        # A loaded model is no JSON; the other fields say how it is loaded.
        return None if client is None else str(client.name)

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
        use = self._in_use()
        reps = use.source.documents(_one_line_each(texts), show_progress=self.show_progress)
        return use.vectors(reps)

    def embed_query(self, text: str) -> list[float]:
        """Embed a query, newlines replaced by spaces, with the query instruction before it.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        use = self._in_use()
        return use.vectors(use.source.queries([_one_line(text)], show_progress=self.show_progress))[
            0
        ]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Do ``embed_documents`` without holding up the event loop.

        Args:
            texts: The documents.

        Returns:
            One vector a document, as Python floats.
        """
        use = self._in_use()
        one_line = _one_line_each(texts)
        reps = await use.source.adocuments(one_line, show_progress=self.show_progress)
        return await aconverted(reps, use.vectors)

    async def aembed_query(self, text: str) -> list[float]:
        """Do ``embed_query`` without holding up the event loop.

        Args:
            text: The query.

        Returns:
            Its vector, as Python floats.
        """
        use = self._in_use()
        reps = await use.source.aqueries([_one_line(text)], show_progress=self.show_progress)
        return use.vectors(reps)[0]

    def _load(self) -> None:
        from m3_core.encoder import shared_encoder

        loading = dict(self.model_kwargs)
        for key in _NETWORK_KEYS:
            self.model_kwargs.pop(key, None)
        truncate_dim, options = _loading_options(loading)
        cache_folder = self.cache_folder or os.environ.get("SENTENCE_TRANSFORMERS_HOME")
        loaded = shared_encoder(self.model_name, cache_folder=cache_folder, **options)
        self._choose_instruction(loaded)
        self._take_show_progress()
        self._loaded, self._truncate_dim = loaded, truncate_dim
        self._in_use()

    def _follow(self, names: Collection[str]) -> None:
        super()._follow(names)
        if self._loaded is None:
            return
        if "client" in names:
            from m3_core import Encoder

            if not isinstance(self.client, Encoder):
                raise TypeError(
                    f"client must be an m3_core.Encoder; got {type(self.client).__name__}"
                )
            self._loaded = self.client
        if "encode_kwargs" in names:
            self._take_show_progress()
        self._in_use()

    def _in_use(self) -> _Use:
        """The encoder with the options that the fields ask for now, made anew if they changed."""
        # Of a copy, and compared by value: other threads assign, and users change the dictionary.
        own = self._snapshot()
        keywords = dict(own.encode_kwargs)
        asked = (own.query_instruction, own.embed_instruction, keywords, own._loaded)
        if own._use is not None and own._use.asked == asked:
            return own._use
        loaded: Encoder = own._loaded
        options = encoding_options("encode_kwargs", keywords, loaded)
        kept, truncate_dim = None, own._truncate_dim
        if options.always_normalized and not options.normalize:
            # The checkpoint's own module scales the whole vector, and what is cut stays shorter.
            kept, truncate_dim = truncate_dim, None
        prompt = options.prompt or ""
        client = loaded.with_options(
            query_instruction=prompt + own.query_instruction,
            document_instruction=prompt + own.embed_instruction,
            truncate_dim=truncate_dim,
            normalize=options.always_normalized or bool(options.normalize),
        )
        self._use = use = _Use(CachedEncoder(client, ["dense"]), kept, asked)
        self.__dict__["client"] = client
        return use

    def _take_show_progress(self) -> None:
        if "show_progress_bar" not in self.encode_kwargs:
            return
        _deprecated(
            "`encode_kwargs['show_progress_bar']` was deprecated in LangChain 0.2.5. Use the "
            f"show_progress field of {type(self).__name__} instead."
        )
        if self.show_progress:
            warnings.warn(
                "Both encode_kwargs['show_progress_bar'] and show_progress are set; "
                "encode_kwargs['show_progress_bar'] takes precedence",
                stacklevel=4,
            )
        self.__dict__["show_progress"] = self.encode_kwargs.pop("show_progress_bar")

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
            own = loaded.query_instruction, loaded.document_instruction
            takes = "takes no instruction: queries get none"
            if any(own):
                takes = f"brings its own instructions: queries get {own[0]!r}, texts {own[1]!r}"
            self.query_instruction = own[0]
            if "embed_instruction" not in self.model_fields_set:
                self.embed_instruction = own[1]
            warnings.warn(
                f"{self.model_name!r} is an M3 model and {takes}. langchain-community puts its "
                f"English instruction before queries. Pass query_instruction={own[0]!r} to have "
                f"this without a warning. {how}",
                stacklevel=4,
            )


def _deprecated(message: str) -> None:
    warnings.warn(LangChainDeprecationWarning(message), stacklevel=4)


def _one_line(text: str) -> str:
    # What is no string is left to the encoder, whose error names the text.
    return text.replace("\n", " ") if isinstance(text, str) else text


def _one_line_each(texts: list[str]) -> list[str]:
    return [_one_line(text) for text in texts]


def _loading_options(found: dict[str, Any]) -> tuple[int | None, dict[str, Any]]:
    """``truncate_dim`` and the options of ``shared_encoder``."""
    known = (*_LOADING_KEYS, *_IDLE_MODEL_KEYS, *_FIXED_MODEL_KEYS, "torch_dtype", "truncate_dim")
    refuse_unknown("model_kwargs", found, known)
    refuse_other_values("model_kwargs", found, _FIXED_MODEL_KEYS)
    options = {key: found[key] for key in _LOADING_KEYS if found.get(key) is not None}
    options["dtype"] = found.get("torch_dtype") or "float32"
    return found.get("truncate_dim"), options
