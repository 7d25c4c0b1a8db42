import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from m3_core.rerankers.lightweight import tokens_merged
from m3_core.rerankers.pairs import PairLayout, encode_pairs


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.integers(0, 20), st.integers(1, 5)), min_size=1, max_size=6
    ),
    st.sampled_from([2, 4, 8]),
)
def test_merged_tokens_are_counted(parts, ratio):
    lengths = np.array([sum(part) for part in parts])
    documents = np.array([(before, before + size) for before, size, _ in parts])
    expected, new_lengths = [], []
    for before, size, after in parts:
        merged = [min(ratio, size - at) for at in range(0, size, ratio)]
        expected += [1] * before + merged + [1] * after
        new_lengths.append(before + len(merged) + after)
    counts, lengths = tokens_merged(lengths, documents, ratio)
    assert counts.tolist() == expected
    assert lengths.tolist() == new_lengths


class _Words:
    """A tokenizer of which every word is its own number."""

    def content_ids(self, texts, limit):
        return [[int(word) for word in text.split()] for text in texts]


@settings(max_examples=200)
@given(st.integers(0, 40), st.integers(0, 60), st.integers(8, 40), st.none() | st.integers(1, 50))
def test_pairs_are_cut_as_only_second_does(query_size, document_size, max_length, query_limit):
    layout = PairLayout((100,), (101, 101), (101,))
    query = " ".join(map(str, range(query_size)))
    document = " ".join(map(str, range(200, 200 + document_size)))
    limit = max_length * 3 // 4 if query_limit is None else query_limit
    if limit + 4 >= max_length:
        limit = max_length - 5
    pair = encode_pairs(_Words(), layout, [query], [document], max_length, query_limit)
    left = list(range(query_size))[:limit]
    # transformers 4: what is too much is taken off the end of the second.
    right = list(range(200, 200 + document_size))[:max_length]
    excess = max(len(left) + len(right) + 4 - max_length, 0)
    right = right[: len(right) - excess]
    assert pair.tokens.ids.tolist() == [100, *left, 101, 101, *right, 101]
    start, stop = pair.documents[0]
    assert pair.tokens.ids[start:stop].tolist() == right
    assert bool(pair.tokens.truncated[0]) == (len(left) < query_size or len(right) < document_size)
