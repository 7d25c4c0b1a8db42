"""``m3-retrieval evaluate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from m3_core.cli.commands import Command, new_app, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from m3_core.evaluation import Evaluation, EvaluationOptions, RetrievalData

app = new_app()

_PICTURES = (".png", ".svg", ".pdf")


@app.command(cls=Command)
def evaluate(
    *,
    data: Annotated[
        str,
        Option(
            help="A folder of BEIR (corpus.jsonl, queries.jsonl, qrels/test.tsv), MIRACL, MKQA or "
            "MLDR as published, or a file of examples for training (query, pos, neg)."
        ),
    ],
    model: Annotated[
        str | None, Option(help="An embedded model, a folder or a hub repository.")
    ] = None,
    reranker: Annotated[
        list[str] | None, Option(help="Models that reorder the best documents of --rerank-of.")
    ] = None,
    run: Annotated[
        list[str] | None,
        Option(help="Run files of TREC to measure beside, or alone where there is no --model."),
    ] = None,
    format: Annotated[
        str | None,
        Option(help="beir, miracl, mkqa, mldr or examples; found out from the files if absent."),
    ] = None,
    split: Annotated[
        str | None, Option(help="Part of the data; test if absent, dev for MIRACL.")
    ] = None,
    language: Annotated[
        str | None, Option(help="Of MIRACL, MKQA or MLDR, where there are several: de, zh_cn.")
    ] = None,
    measures: Annotated[
        list[str] | None,
        Option(
            help="As ir-measures calls them; weights are chosen by the first. If absent: nDCG@10 "
            "R@5 R@20 R@100 RR@10 Success@1."
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        Option(help="Further weights of dense, lexical and multi-vector scores: 0.6,0.1,0.3."),
    ] = None,
    representations: Annotated[
        list[str] | None, Option(help="Of dense, sparse and colbert; all there are if absent.")
    ] = None,
    baseline: Annotated[
        str | None,
        Option(help="Setting or run that the others are tested against; the default hybrid."),
    ] = None,
    colbert: Annotated[
        str,
        Option(
            help="Score the multi-vectors of all documents, or of candidates: the best of dense "
            "and of lexical scores; auto: all, up to 4 million pairs."
        ),
    ] = "auto",
    candidates: Annotated[int, Option(help="How many of each these are.")] = 200,
    depth: Annotated[int, Option(help="Documents a ranking holds.")] = 1000,
    rerank: Annotated[int, Option(help="Documents a reranker gets for a query.")] = 100,
    rerank_of: Annotated[
        str | None, Option(help="The setting they are the best of; the default hybrid.")
    ] = None,
    folds: Annotated[
        int, Option(help="Of the cross-validation that chooses weights; 0 for no advice.")
    ] = 5,
    max_length: Annotated[int | None, Option(help="Tokens a document at most.")] = None,
    query_max_length: Annotated[int | None, Option(help="Tokens a query at most.")] = None,
    encodings: Annotated[
        str | None,
        Option(
            help="Folder that keeps encodings: an interrupted run goes on there, a later one "
            "encodes nothing."
        ),
    ] = None,
    ignore_identical_ids: Annotated[
        bool,
        Option(
            "--ignore-identical-ids",
            help="Have no query find the document of its own id, as on ArguAna.",
        ),
    ] = False,
    half: Annotated[
        bool, Option("--half", help="Keep multi-vectors in float16: half the disk.")
    ] = False,
    runs: Annotated[
        str | None, Option(help="Folder for a run file of TREC of each setting.")
    ] = None,
    plot: Annotated[str | None, Option(help="Picture of the first measure: .png or .svg.")] = None,
    json: Annotated[
        bool, Option("--json", help="Write everything as JSON instead of a table.")
    ] = False,
    device: Annotated[str | None, Option(help="The fastest there is if absent.")] = None,
    dtype: Annotated[str, Option(help="float32, bfloat16, float16, int8 or auto.")] = "auto",
) -> None:
    """Measure retrieval: each representation, hybrids, rerankers, and what fits the data.

    Each text is encoded once for all settings. Prints nDCG, recall and reciprocal rank, what
    is more than chance, and which weights fit these data.
    """
    from m3_core.evaluation import EvaluationOptions, load_data

    options = EvaluationOptions(
        measures=tuple(measures or ()),
        weights=tuple(_weights(one) for one in weights or ()),
        representations=tuple(representations) if representations else None,
        depth=depth,
        colbert=colbert,  # type: ignore[arg-type]  # checked where it is used
        candidates=candidates,
        rerank=rerank,
        rerank_of=rerank_of,
        baseline=baseline,
        folds=folds,
        max_length=max_length,
        query_max_length=query_max_length,
        ignore_identical_ids=ignore_identical_ids,
        half=half,
        encodings=encodings,
        show_progress=sys.stderr.isatty(),
    )
    # What cannot be drawn is told before anything is encoded.
    if plot is not None and Path(plot).suffix not in _PICTURES:
        raise ValueError(f"--plot {plot} must end in one of {', '.join(_PICTURES)}")
    collection = load_data(data, format, split=split, language=language)
    found = _evaluation(collection, model, reranker or [], run or [], options, device, dtype)
    if json:
        write(found.to_json())
    else:
        _show(found)
    if runs is not None:
        found.write_runs(runs)
    if plot is not None:
        from m3_core.evaluation import plot as draw

        draw({found.model: found}, plot, found.measures[0])


def _evaluation(
    data: RetrievalData,
    model: str | None,
    rerankers: Sequence[str],
    files: Sequence[str],
    options: EvaluationOptions,
    device: str | None,
    dtype: str,
) -> Evaluation:
    from m3_core.evaluation import evaluate, evaluate_runs, parse_measures, read_run

    # What is missing or misspelt is told before anything is encoded.
    parse_measures(options.measures)
    runs = {Path(file).stem: read_run(file) for file in files}
    if len(runs) < len(files):
        raise ValueError(f"two of the run files {', '.join(files)} have the same name")
    if model is None:
        if rerankers:
            raise ValueError("a reranker reorders what a model found: give --model")
        return evaluate_runs(data, runs, options.measures, options.baseline)
    from m3_core.encoder import Encoder
    from m3_core.rerankers import Reranker

    loaded = {
        Path(name).name: Reranker.from_pretrained(name, device=device, dtype=dtype)
        for name in rerankers
    }
    encoder = Encoder.from_pretrained(model, device=device, dtype=dtype)
    return evaluate(encoder, data, rerankers=loaded, runs=runs, options=options)


def _weights(text: str) -> tuple[float, float, float]:
    try:
        dense, sparse, colbert = (float(one) for one in text.replace("/", ",").split(","))
    except ValueError as error:
        raise ValueError(
            f"--weights {text!r} is not three numbers (dense, lexical, multi-vector), such as "
            "0.6,0.1,0.3"
        ) from error
    return dense, sparse, colbert


def _show(found: Evaluation) -> None:
    heads, rows = found.to_table()
    title = f"{found.data}: {len(found.queries)} queries, {len(found.documents)} documents"
    sys.stdout.write(f"{title}, {found.model}\n")
    if sys.stdout.isatty():
        _write_framed(heads, rows, len(found.measures))
    else:
        _write_plain(heads, rows)
    lines = list(found.notes)
    for advice in found.advice:
        lines += [f"warning: {advice.warning}"] if advice.warning else []
        lines.append(advice.text)
    sys.stdout.write("".join(f"{line}\n" for line in lines))


def _write_plain(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in [heads, *rows]) for column in range(len(heads))]
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _write_framed(heads: Sequence[str], rows: Sequence[Sequence[str]], measures: int) -> None:
    """A table for a terminal, the best of each measure in bold."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, head in enumerate(heads):
        table.add_column(Text(head), justify="right" if column else "left", no_wrap=not column)
    best = [max(float(row[column]) for row in rows) for column in range(1, measures + 1)]
    for row in rows:
        cells = [Text(cell) for cell in row]
        for column, value in enumerate(best, 1):
            if float(row[column]) == value:
                cells[column].stylize("bold")
        table.add_row(*cells)
    Console(highlight=False).print(table)
