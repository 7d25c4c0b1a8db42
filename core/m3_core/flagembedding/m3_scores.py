"""The scoring half of ``BGEM3FlagModel``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from m3_core.flagembedding.embedder import Embedder
from m3_core.flagembedding.results import matching_scores
from m3_core.representations import MultiVectors
from m3_core.scoring import maxsim_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray


class M3Scores(Embedder):
    """Scores between lexical weights, multi-vectors and pairs of texts."""

    def convert_id_to_token(
        self, lexical_weights: Mapping[str, float] | Sequence[Mapping[str, float]]
    ) -> Any:
        """Show lexical weights with token texts in place of ids.

        Args:
            lexical_weights: Of one text, or of several.

        Returns:
            ``{token text: weight}`` in the order of the weights, which ``encode`` gives in that
            of the text; in a list unless there is just one. Where two ids have the same text the
            larger weight stands (there, the later).
        """
        single = isinstance(lexical_weights, dict)
        rows: Any = [lexical_weights] if single else lexical_weights
        decoded = [self._shared.decode_weights(row) for row in rows]
        return decoded[0] if len(decoded) == 1 else decoded

    def compute_lexical_matching_score(
        self,
        lexical_weights_1: Mapping[str, float] | Sequence[Mapping[str, float]],
        lexical_weights_2: Mapping[str, float] | Sequence[Mapping[str, float]],
    ) -> float | NDArray[np.float64]:
        """Sum the products of the weights of shared tokens.

        Args:
            lexical_weights_1: Of one text, or a list of them.
            lexical_weights_2: The same kind.

        Returns:
            A score for two texts. For two lists, shape: (first, second).

        Raises:
            ValueError: One is a dict and the other a list, or one is neither.
        """
        if isinstance(lexical_weights_1, dict) and isinstance(lexical_weights_2, dict):
            return float(matching_scores([lexical_weights_1], [lexical_weights_2])[0, 0])
        if isinstance(lexical_weights_1, list) and isinstance(lexical_weights_2, list):
            return matching_scores(lexical_weights_1, lexical_weights_2)
        raise ValueError(
            "lexical weights must be two dicts or two lists of dicts; got "
            f"{type(lexical_weights_1).__name__} and {type(lexical_weights_2).__name__}"
        )

    def colbert_score(self, q_reps: NDArray[Any], p_reps: NDArray[Any]) -> torch.Tensor:
        """Average each query vector's best similarity to a document's vectors.

        Args:
            q_reps: Shape: (query tokens, dim).
            p_reps: Shape: (document tokens, dim).

        Returns:
            A scalar tensor, float32.
        """
        queries, documents = (MultiVectors.from_arrays([part]) for part in (q_reps, p_reps))
        return torch.tensor(maxsim_scores(queries, documents)[0, 0])

    def compute_score(
        self,
        sentence_pairs: Sequence[tuple[str, str]] | tuple[str, str],
        batch_size: int | None = None,
        max_query_length: int | None = None,
        max_passage_length: int | None = None,
        weights_for_different_modes: Sequence[float] | None = None,
    ) -> Any:
        """Score (query, document) pairs in all ways; as there, without instructions.

        The multi-vector scores are those that FlagEmbedding gives at batch size 1; at larger
        ones its padding takes part. ``truncate_dim`` has no effect, as there.

        Args:
            sentence_pairs: Pairs, or a single one.
            batch_size: Without effect.
            max_query_length: Tokens a query at most; ``query_max_length`` if ``None``.
            max_passage_length: Tokens a document at most; ``passage_max_length`` if ``None``.
            weights_for_different_modes: Of dense, sparse and colbert; 1 each if ``None``.

        Returns:
            ``"colbert"``, ``"sparse"``, ``"dense"``, ``"sparse+dense"`` and
            ``"colbert+sparse+dense"``, each with a list of scores, or with one score for a single
            pair. An empty list for no pairs.

        Raises:
            TypeError: An element is no pair of strings.
            ValueError: The weights are not three numbers with a sum above 0.
            MissingRepresentationError: The checkpoint has no heads.
        """
        del batch_size
        if isinstance(sentence_pairs, np.ndarray):
            sentence_pairs = sentence_pairs.tolist()
        if len(sentence_pairs) == 0:
            return []
        single = isinstance(sentence_pairs[0], str)
        pairs: Any = [sentence_pairs] if single else sentence_pairs
        weights = weights_for_different_modes
        scores = self.encoder.with_options(truncate_dim=None).compute_score(
            pairs,
            weights=(1.0, 1.0, 1.0) if weights is None else weights,
            max_length=self._limit.lowered(
                self.passage_max_length if max_passage_length is None else max_passage_length
            ),
            query_max_length=self._limit.lowered(
                self.query_max_length if max_query_length is None else max_query_length
            ),
        )
        return {key: value[0] for key, value in scores.items()} if single else scores
