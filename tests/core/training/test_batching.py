import numpy as np
import pytest

from m3_core.errors import TrainingDataError
from m3_core.network.tokens import Tokenizer
from m3_core.training.batching import BatchOptions, TrainingBatches, length_groups


def example(query, pos, neg=(), **extra):
    row = {"query": query, "pos": list(pos), "neg": list(neg), "prompt": None}
    return row | {"pos_scores": None, "neg_scores": None} | extra


@pytest.fixture(scope="module")
def tokenizer(base):
    return Tokenizer.from_folder(base)


def batches(tokenizer, rows, **options):
    return TrainingBatches(rows, tokenizer, BatchOptions(**options))


def test_batches_hold_texts_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 1000, 640)
    groups = length_groups(lengths, 16, np.random.default_rng(1))
    assert sorted(np.concatenate(groups)) == list(range(640))
    spread = np.mean([np.ptp(lengths[group]) for group in groups])
    assert spread < 0.15 * np.ptp(lengths)


def test_processes_share_batches_and_see_everything_once(tokenizer):
    rows = [example(f"panda {'x' * i}", ["bear"], ["city"]) for i in range(24)]
    options = {"batch_size": 3, "group_size": 1, "keep_texts": True, "seed": 5}
    one = batches(tokenizer, rows, **options | {"batch_size": 6})
    two = batches(tokenizer, rows, **options, processes=2)
    assert len(two) == 2 * len(one)
    for step in range(len(one)):
        both = two[2 * step]["queries"] + two[2 * step + 1]["queries"]
        assert both == one[step]["queries"]
    seen = [query for i in range(len(two)) for query in two[i]["queries"]]
    assert sorted(seen) == sorted(row["query"] for row in rows)


def test_a_batch_depends_on_its_number_alone(tokenizer):
    rows = [example(str(i), ["a", "b", "c"], ["d", "e", "f"]) for i in range(8)]
    options = {"batch_size": 2, "group_size": 3, "epochs": 2, "keep_texts": True}
    first, second = (batches(tokenizer, rows, **options) for _ in range(2))
    forward = [first[i]["documents"] for i in range(len(first))]
    backward = [second[i]["documents"] for i in reversed(range(len(second)))]
    assert forward == backward[::-1]
    assert forward[:4] != forward[4:]


def test_negatives_repeat_only_when_there_are_too_few(tokenizer):
    rows = [example("q", ["p"], ["n1", "n2"])]
    enough = batches(tokenizer, rows, group_size=3, keep_texts=True)[0]["documents"]
    assert enough[0] == "p"
    assert sorted(enough[1:]) == ["n1", "n2"]
    more = batches(tokenizer, rows, group_size=5, keep_texts=True)[0]["documents"]
    assert sorted(more[1:]) == ["n1", "n1", "n2", "n2"]


def test_missing_negatives_and_scores_are_errors(tokenizer):
    with pytest.raises(TrainingDataError, match="no 'neg'"):
        batches(tokenizer, [example("q", ["p"])], group_size=2)[0]
    with pytest.raises(TrainingDataError, match="pos_scores"):
        batches(tokenizer, [example("q", ["p"], ["n"])], teacher_scores=True)[0]
    with pytest.raises(TrainingDataError, match="no examples"):
        batches(tokenizer, [])


def test_scores_go_with_their_texts(tokenizer):
    rows = [example("q", ["p"], ["n1", "n2"], pos_scores=[9.0], neg_scores=[1.0, 2.0])]
    batch = batches(tokenizer, rows, group_size=3, teacher_scores=True, keep_texts=True)[0]
    scores = dict(zip(batch["documents"], batch["teacher_scores"][0].tolist(), strict=True))
    assert scores == {"p": 9.0, "n1": 1.0, "n2": 2.0}


def test_prompts_stand_before_texts(tokenizer):
    rows = [example("panda", ["bear"], prompt="find: "), example("panda", ["bear"])]
    settings = {"group_size": 1, "query_instruction": "query: ", "document_instruction": "text: "}
    batch = batches(tokenizer, rows, batch_size=2, **settings)[0]
    expected = tokenizer.encode(["find: panda", "query: panda"], 64)
    rows = zip(batch["query_ids"], batch["query_mask"], strict=True)
    found = sorted(row[mask > 0].tolist() for row, mask in rows)
    assert found == sorted(part.tolist() for part in np.split(expected.ids, expected.offsets[1:-1]))
    assert batch["document_ids"][0].tolist() == tokenizer.encode(["text: bear"], 64).ids.tolist()


def test_batches_of_one_file(tokenizer):
    rows = [example(str(i), ["d"], source=i % 2) for i in range(12)]
    made = batches(tokenizer, rows, batch_size=3, group_size=1, same_file=True, keep_texts=True)
    assert len(made) == 4
    for i in range(len(made)):
        assert len({int(query) % 2 for query in made[i]["queries"]}) == 1
