import gzip
import json

import pytest

from m3_core.errors import EvaluationDataError
from m3_core.evaluation import EvaluationOptions, evaluate, load_data, read_run
from m3_core.evaluation.answers import contains, plain_text
from m3_core.testing import FakeEncoder


def lines_of(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = rows if isinstance(rows, str) else lines_of(rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, "utf-8")


def test_beir_joins_title_and_text_and_leaves_unjudged_queries_out(beir):
    data = load_data(beir)
    assert (data.name, data.origin, list(data.queries)) == (
        "pandas",
        "beir",
        ["q1", "q2", "q3", "q4"],
    )
    documents = dict(data.corpus)
    assert documents["d1"] == "The giant panda eats bamboo in the mountains of China."
    assert dict(data.corpus) == documents
    assert data.qrels["q1"] == {"d1": 2, "d4": 1, "d2": 0}


def test_packed_files_and_the_forms_of_judgements(beir):
    plain = load_data(beir)
    for name in ("corpus", "queries"):
        file = beir / f"{name}.jsonl"
        write(beir / f"{name}.jsonl.gz", file.read_text("utf-8"))
        file.unlink()
    pairs = [(q, d, grade) for q, own in plain.qrels.items() for d, grade in own.items()]
    (beir / "qrels" / "test.tsv").unlink()
    write(beir / "qrels" / "dev.tsv", "".join(f"{q} 0 {d} {grade}\n" for q, d, grade in pairs))
    named = [{"query-id": q, "corpus-id": d, "score": float(grade)} for q, d, grade in pairs]
    write(beir / "qrels" / "train.jsonl", named)
    for split in ("dev", "train"):
        data = load_data(beir, split=split)
        assert (data.qrels, data.queries) == (plain.qrels, plain.queries)
        assert list(data.corpus)[1:] == list(data.corpus)[1:]
    with pytest.raises(EvaluationDataError, match=r"no judgements 'test'; found \['dev"):
        load_data(beir)


def miracl(folder):
    """Topics, judgements and passages, in the folders and names of the two data sets."""
    own = folder / "miracl" / "miracl-v1.0-sw"
    write(own / "topics" / "topics.miracl-v1.0-sw-dev.tsv", "1\tJe, panda hula nini?\n2\tNini?\n")
    write(own / "qrels" / "qrels.miracl-v1.0-sw-dev.tsv", "1\tQ0\t10#0\t1\n1\tQ0\t2#1\t0\n")
    corpus = folder / "miracl-corpus" / "miracl-corpus-v1.0-sw"
    first = [{"docid": "2#1", "title": "Mto", "text": "Mto una samaki."}]
    last = [{"docid": "10#0", "title": "Panda", "text": "Panda hula mianzi."}]
    write(corpus / "docs-0.jsonl.gz", first)
    write(corpus / "docs-10.jsonl.gz", last)
    write(corpus / "docs-2.jsonl.gz", [{"docid": "5#0", "title": "", "text": "Mji."}])
    return folder


def test_miracl(tmp_path):
    data = load_data(miracl(tmp_path))
    assert (data.name, data.origin) == ("miracl-sw-dev", "miracl")
    assert data.queries == {"1": "Je, panda hula nini?"}
    assert data.qrels == {"1": {"10#0": 1, "2#1": 0}}
    assert [key for key, _ in data.corpus] == ["2#1", "5#0", "10#0"]
    assert dict(data.corpus)["10#0"] == "Panda Panda hula mianzi."
    assert load_data(tmp_path, language="sw").name == data.name
    with pytest.raises(EvaluationDataError, match="of the language 'te'"):
        load_data(tmp_path, language="te")
    write(tmp_path / "topics.miracl-v1.0-te-dev.tsv", "1\tq\n")
    with pytest.raises(EvaluationDataError, match="several languages: name one of"):
        load_data(tmp_path)


def test_mldr(tmp_path):
    own = tmp_path / "mldr-v1.0-de"
    write(
        own / "corpus.jsonl.gz", [{"docid": f"doc-de-{n}", "text": f"Text {n}"} for n in range(3)]
    )
    row = {
        "query_id": "q-de-1",
        "query": "Welcher Text?",
        "positive_passages": [{"docid": "doc-de-1", "text": "Text 1"}],
        "negative_passages": [{"docid": "doc-de-0", "text": "Text 0"}],
    }
    write(own / "test.jsonl.gz", [row])
    for folder in (tmp_path, own):
        data = load_data(folder)
        assert (data.name, data.origin) == ("mldr-v1.0-de-test", "mldr")
        assert data.queries == {"q-de-1": "Welcher Text?"}
        assert data.qrels == {"q-de-1": {"doc-de-1": 1, "doc-de-0": 0}}
        assert list(data.corpus)[1] == ("doc-de-1", "Text 1")
    found = evaluate(FakeEncoder(), load_data(own), options=EvaluationOptions(folds=0))
    assert {"mldr 0.2/0.8/0", "mldr 0.15/0.5/0.35", "all 1/0.3/1"} <= set(found.measured)


NQ = [
    {"_id": "doc0", "title": "Panda", "text": "It eats 38 kg of “Bamboo” — daily."},
    {"_id": "doc1", "title": "River", "text": "The pandas' river."},
    {"_id": "doc2", "title": "Bridge", "text": "Built in 1869 by Armand David."},
]


def test_mkqa_in_both_published_forms(tmp_path):
    makers = [
        {
            "example_id": 11,
            "queries": {"en": "what do pandas eat", "de": "Was essen Pandas?"},
            "answers": {
                "en": [{"type": "entity", "text": "bamboo", "aliases": ["bamboos"]}],
                "de": [{"type": "entity", "text": "Bambus"}],
            },
        },
        {
            "example_id": 12,
            "queries": {"en": "is it true", "de": "Stimmt das?"},
            "answers": {"en": [{"type": "binary", "text": "yes"}]},
        },
        {
            "example_id": 13,
            "queries": {"en": "who knows", "de": "Wer weiß?"},
            "answers": {"en": [{"type": "unanswerable", "text": None}]},
        },
    ]
    write(tmp_path / "a" / "mkqa.jsonl.gz", makers)
    test_data = [{"id": 11, "question": "Was essen Pandas?", "answers": ["bamboo", "bamboos"]}]
    write(tmp_path / "b" / "qa_data" / "de.jsonl", test_data)
    for folder, form in (("a", None), ("b", "mkqa")):
        write(tmp_path / folder / "nq" / "corpus.jsonl", NQ)
        data = load_data(tmp_path / folder, form, language="de")
        assert data.queries == {"11": "Was essen Pandas?"}
        assert data.answers == {"11": ["bamboo", "bamboos"]}
        assert dict(data.corpus)["doc0"] == 'panda it eats 38 kg of "bamboo" - daily.'
    with pytest.raises(EvaluationDataError, match="26 languages: name one"):
        load_data(tmp_path / "a")
    options = EvaluationOptions(folds=0, measures=("Success@1", "Success@3"))
    found = evaluate(FakeEncoder(), data, options=options)
    (ranked,) = found.run("dense").values()
    assert found["dense"] == {"Success@1": float(next(iter(ranked)) == "doc0"), "Success@3": 1.0}
    assert any("contains an answer" in note for note in found.notes)


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("Pandas eat bamboo.", ["Bamboo"], True),
        ("Pandas eat bamboo.", ["bamb", "anda"], False),
        ("Le café noir", ["CAFE\u0301"], True),
        ("in 1869, by David", ["1869 , by"], True),
        ("in 1869 by David", ["1869 , by"], False),
        ("हिन्दी भाषा", ["हिन्दी"], True),
        ("anything", ["", " "], False),
        ("東京都", ["東京"], False),
    ],
)
def test_answers_are_found_word_for_word(text, answers, expected):
    assert contains(text, answers) is expected


def test_plain_text_is_in_lower_case_with_ascii_signs():
    assert plain_text("A–B “c” ‘d’ e\u00adf ⅓ 5″ …") == "a-b \"c\" 'd' ef ⅓ 5'' ..."


def test_examples_for_training(tmp_path):
    file = tmp_path / "own.jsonl"
    rows = [
        {"query": "panda", "pos": ["bamboo", "a bear"], "neg": ["a city"]},
        {"query": "city", "pos": ["a city"], "prompt": "Find: "},
    ]
    write(file, rows)
    data = load_data(file)
    assert [text for _, text in data.corpus] == ["bamboo", "a bear", "a city"]
    assert data.queries == {"0": "panda", "1": "Find: city"}
    assert data.qrels == {"0": {"0": 1, "1": 1}, "1": {"2": 1}}


def test_what_is_absent_or_something_else_is_told(tmp_path, beir):
    with pytest.raises(EvaluationDataError, match="nowhere does not exist"):
        load_data(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationDataError, match="is no folder of BEIR"):
        load_data(tmp_path / "empty")
    with pytest.raises(ValueError, match="format is 'trec'; it must be one of beir, miracl"):
        load_data(beir, "trec")
    with pytest.raises(EvaluationDataError, match="of one language; asked for was 'de'"):
        load_data(beir, language="de")
    for name, content, message in (
        ("qrels/test.tsv", "q1\td1\n", r"test.tsv:1: 2 columns; judgements have 3"),
        ("qrels/test.tsv", "q1\td1\tgood\n", "grade 'good'; a grade is a whole number"),
        ("qrels/test.tsv", "other\td1\t1\n", "none of 5 queries has a relevant document"),
        ("queries.jsonl", '{"_id": "q1"}\n', "queries.jsonl:1: no text 'text'"),
        ("queries.jsonl", '{"text": "q"}\n', "queries.jsonl:1: no '_id'; found"),
        ("queries.jsonl", "[1]\n", "queries.jsonl:1: list where an object must be"),
        ("queries.jsonl", "{\n", "queries.jsonl:1: not JSON"),
    ):
        before = (beir / name).read_text("utf-8")
        (beir / name).write_text(content, "utf-8")
        with pytest.raises(EvaluationDataError, match=message):
            load_data(beir)
        (beir / name).write_text(before, "utf-8")
    (beir / "corpus.jsonl").write_text('{"_id": "d1", "text": 3}\n', "utf-8")
    with pytest.raises(EvaluationDataError, match="a document needs 'text'"):
        evaluate(FakeEncoder(), load_data(beir))
    (beir / "corpus.jsonl").write_text("", "utf-8")
    with pytest.raises(EvaluationDataError, match="pandas has no documents"):
        evaluate(FakeEncoder(), load_data(beir))
    write(beir / "corpus.jsonl", [{"_id": "d1", "text": "a"}, {"_id": "d1", "text": "b"}])
    with pytest.raises(ValueError, match="two texts have the id 'd1'"):
        evaluate(FakeEncoder(), load_data(beir))
    write(beir / "corpus.jsonl.gz", "")
    (beir / "corpus.jsonl.gz").write_bytes(b"no gzip")
    (beir / "corpus.jsonl").unlink()
    with pytest.raises(EvaluationDataError, match=r"corpus.jsonl.gz:1 cannot be read"):
        evaluate(FakeEncoder(), load_data(beir))


def test_a_byte_order_mark_is_no_part_of_an_id(beir, tmp_path):
    plain = load_data(beir)
    for file in (beir / "corpus.jsonl", beir / "queries.jsonl", beir / "qrels" / "test.tsv"):
        lines = file.read_text("utf-8").replace("query-id\tcorpus-id\tscore\n", "")
        file.write_text("\ufeff" + lines.replace("\n", "\r\n"), "utf-8", newline="")
    data = load_data(beir)
    assert (data.queries, data.qrels, list(data.corpus)) == (
        plain.queries,
        plain.qrels,
        list(plain.corpus),
    )
    run = tmp_path / "run.trec"
    run.write_text("\ufeffq1 Q0 d1 1 0.5 x\n", "utf-8")
    assert read_run(run) == {"q1": {"d1": 0.5}}


def test_columns_of_judgements_go_by_their_names(beir):
    plain = load_data(beir)
    pairs = [(q, d, grade) for q, own in plain.qrels.items() for d, grade in own.items()]
    lines = "".join(f"{grade}\t{d}\t{q}\n" for q, d, grade in pairs)
    write(beir / "qrels" / "test.tsv", f"score\tcorpus-id\tquery-id\n{lines}")
    assert load_data(beir).qrels == plain.qrels


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("qrels/test.tsv", "q1\td1\tinf\n", "test.tsv:1: .*a grade is a whole number"),
        ("qrels/test.tsv", "q1\td1\t1\nq1\td1\t0\n", r"test.tsv:2: .*the grade 0, and 1 in a line"),
        (
            "queries.jsonl",
            '{"_id": 1, "text": "a"}\n{"_id": "1", "text": "b"}\n',
            "queries.jsonl:2: another query has the id '1' too",
        ),
        ("corpus.jsonl", '{"_id": "d1", "text": ["a"]}\n', "corpus.jsonl:1: .*as strings"),
    ],
)
def test_what_contradicts_itself_is_told_with_its_line(beir, file, text, message):
    write(beir / file, text)
    with pytest.raises(EvaluationDataError, match=message):
        list(load_data(beir).corpus)


@pytest.mark.parametrize(
    "passages", ['["d1"]', "5", '{"docid": "d1"}'], ids=["strings", "number", "object"]
)
def test_published_files_of_another_shape_are_refused(tmp_path, passages):
    row = f'{{"query_id": "q", "query": "x", "positive_passages": {passages}}}\n'
    write(tmp_path / "test.jsonl", row)
    write(tmp_path / "corpus.jsonl", [{"docid": "d1", "text": "x"}])
    with pytest.raises(EvaluationDataError, match="'positive_passages' is no list of objects"):
        load_data(tmp_path, "mldr")
    answers = {"en": [{"type": "entity", "text": "x", "aliases": 5}]}
    write(
        tmp_path / "mkqa.jsonl",
        [{"example_id": 1, "queries": {"de": "x"}, "answers": answers}],
    )
    with pytest.raises(EvaluationDataError, match="'aliases' is no list"):
        load_data(tmp_path, "mkqa", language="de")


def test_a_score_that_is_no_number_is_no_ranking(tmp_path):
    (tmp_path / "run.trec").write_text("q1 Q0 d1 1 nan x\n")
    with pytest.raises(EvaluationDataError, match=r"run.trec:1: a line of a run"):
        read_run(tmp_path / "run.trec")
