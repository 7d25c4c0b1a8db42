"""An encoder's way from texts to representations: tokens, work for the engine, its results."""

from __future__ import annotations

import warnings
from itertools import islice
from typing import TYPE_CHECKING, cast

from m3_core.beside import beside
from m3_core.encoder.located import TextTokens
from m3_core.encoder.methods import EncodingMethods
from m3_core.encoder.options import make_request
from m3_core.encoder.results import RepresentationCollector
from m3_core.network import (
    CHARACTERS_ON_THE_LOOP,
    ModelUser,
    TruncationWarning,
    Work,
    count,
    level_of_caller,
    progress_bar,
)
from m3_core.texts import check_texts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from m3_core.encoder.options import EncoderOptions
    from m3_core.encoder.pipeline import Pipeline, Request
    from m3_core.encoder.protocol import Role
    from m3_core.network import Ticket, TokenBatch
    from m3_core.representations import Representations


class RunningEncoder(ModelUser, EncodingMethods):
    """What an ``Encoder`` does with texts."""

    options: EncoderOptions

    @property
    def representations(self) -> frozenset[str]:
        """What the model gives: of ``"dense"``, ``"sparse"`` and ``"colbert"``."""
        has_heads = self._network.colbert_dimension > 0
        return frozenset({"dense", "sparse", "colbert"} if has_heads else {"dense"})

    def work(self, tokens: TokenBatch, request: Request) -> Work:
        """Make work for the engine of texts that are tokenised already.

        Args:
            tokens: The texts.
            request: What to compute.

        Returns:
            The work; its collector is a ``RepresentationCollector``.
        """
        return Work(tokens, request, RepresentationCollector(self._network, tokens, request))

    @property
    def _network(self) -> Pipeline:
        return cast("Pipeline", self.model.network)

    def request(self, parts: Collection[str], *, mcls: bool = False) -> Request:
        """Check what a call asks for.

        Args:
            parts: Of ``"dense"``, ``"sparse"`` and ``"colbert"``.
            mcls: As of ``Encoder.encode_documents``.

        Returns:
            What to compute.
        """
        return make_request(self.name, self.representations, self.options, parts, mcls=mcls)

    def token_offsets(
        self, texts: Iterable[str], role: Role = "document", max_length: int | None = None
    ) -> list[TextTokens]:
        """Say where the tokens stand that the network gets of texts.

        Args:
            texts: As the user gave them.
            role: Which instruction stands before them: ``"document"`` or ``"query"``.
            max_length: Tokens a text at most; the encoder's own if ``None``.

        Returns:
            Of each text its tokens.

        Raises:
            TypeError: A text is no string.
            ValueError: A text is no valid Unicode, or ``max_length`` does not fit the model.
        """
        limit = self._limit(max_length)
        instruction, tokenizer = self._instruction(role), self.model.tokenizer
        located: list[TextTokens] = []
        for text in check_texts(texts):
            batch, places = tokenizer.locate(instruction + text, limit)
            places[len(tokenizer.prefix) : len(places) - len(tokenizer.suffix)] -= len(instruction)
            located.append(TextTokens(batch.ids, places, bool(batch.truncated[0])))
        return located

    def _instruction(self, role: Role) -> str:
        query = role == "query"
        return self.options.query_instruction if query else self.options.document_instruction

    def _limit(self, max_length: int | None) -> int:
        return self.model.check_length(
            self.options.max_length if max_length is None else max_length
        )

    def _encode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
        mcls: bool = False,
    ) -> Representations:
        request = self.request(parts, mcls=mcls)
        work = self._work(role, check_texts(texts), request, max_length)
        with progress_bar(work, "Encoding", "text", show=show_progress) as shown:
            self.model.engine.submit(shown).wait()
        return cast("RepresentationCollector", work.collector).result()

    async def _aencode(
        self,
        role: Role,
        texts: Iterable[str],
        parts: tuple[str, ...],
        max_length: int | None,
        *,
        show_progress: bool,
        mcls: bool = False,
    ) -> Representations:
        request = self.request(parts, mcls=mcls)
        checked = check_texts(texts)
        if sum(map(len, checked)) > CHARACTERS_ON_THE_LOOP:
            work = await beside(self._work, role, checked, request, max_length)
        else:
            work = self._work(role, checked, request, max_length)
        with progress_bar(work, "Encoding", "text", show=show_progress) as shown:
            await self.model.engine.arun(shown)
        return cast("RepresentationCollector", work.collector).result()

    def _work(self, role: Role, texts: list[str], request: Request, max_length: int | None) -> Work:
        """Tokenise texts, and warn once if some were cut."""
        instruction, limit = self._instruction(role), self._limit(max_length)
        every = None if request.marker_every is None else request.marker_every - 1
        if instruction:
            texts = [instruction + text for text in texts]
        tokens = self.model.tokenizer.encode(texts, limit, every)
        cut = int(tokens.truncated.sum())
        if not count(len(texts), len(tokens.ids), cut) and cut:
            warnings.warn(
                f"{cut} of {len(texts)} texts were longer than max_length={limit} tokens and were "
                "cut to it",
                TruncationWarning,
                stacklevel=level_of_caller(),
            )
        return self.work(tokens, request)

    def _stream(
        self,
        texts: Iterator[str],
        batch_size: int,
        role: Role,
        request: Request,
        max_length: int | None,
    ) -> Iterator[Representations]:
        read = 0

        def submitted() -> tuple[Work, Ticket] | None:
            nonlocal read
            part = check_texts(islice(texts, batch_size), read)
            if not part:
                return None
            read += len(part)
            work = self._work(role, part, request, max_length)
            return work, self.model.engine.submit(work)

        running = submitted()
        while running is not None:
            work, ticket = running
            running, failure = None, None
            try:
                running = submitted()
            except Exception as error:  # noqa: BLE001 (raised once the texts before it are given)
                failure = error
            try:
                ticket.wait()
                yield cast("RepresentationCollector", work.collector).result()
            except BaseException:
                if running is not None:
                    running[1].cancel()
                raise
            if failure is not None:
                raise failure
