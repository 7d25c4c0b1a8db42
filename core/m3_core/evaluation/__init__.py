"""How well a model retrieves: published test collections, every way of ranking, what fits.

Needs the extra ``evaluate``: ``pip install m3-retrieval[evaluate]``. Importing this package loads
nothing; each name loads its module on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m3_core.lazy import lazy_names

if TYPE_CHECKING:
    from m3_core.evaluation.data import RetrievalData
    from m3_core.evaluation.evaluating import EvaluationOptions, evaluate, evaluate_runs
    from m3_core.evaluation.measures import (
        MEASURES,
        Measured,
        measure_run,
        parse_measures,
        read_run,
        write_run,
    )
    from m3_core.evaluation.mteb_models import MtebModel, mteb_model, register_mteb_models
    from m3_core.evaluation.readers import FORMATS, load_data
    from m3_core.evaluation.report import Evaluation, plot
    from m3_core.evaluation.settings import Setting, settings_for
    from m3_core.evaluation.significance import Difference, compare_values
    from m3_core.evaluation.tuning import Advice, fit_weights

__all__ = [
    "FORMATS",
    "MEASURES",
    "Advice",
    "Difference",
    "Evaluation",
    "EvaluationOptions",
    "Measured",
    "MtebModel",
    "RetrievalData",
    "Setting",
    "compare_values",
    "evaluate",
    "evaluate_runs",
    "fit_weights",
    "load_data",
    "measure_run",
    "mteb_model",
    "parse_measures",
    "plot",
    "read_run",
    "register_mteb_models",
    "settings_for",
    "write_run",
]

_HOMES = {
    "Advice": "tuning",
    "compare_values": "significance",
    "Difference": "significance",
    "evaluate": "evaluating",
    "evaluate_runs": "evaluating",
    "Evaluation": "report",
    "EvaluationOptions": "evaluating",
    "fit_weights": "tuning",
    "FORMATS": "readers",
    "load_data": "readers",
    "measure_run": "measures",
    "Measured": "measures",
    "MEASURES": "measures",
    "mteb_model": "mteb_models",
    "MtebModel": "mteb_models",
    "parse_measures": "measures",
    "plot": "report",
    "read_run": "measures",
    "register_mteb_models": "mteb_models",
    "RetrievalData": "data",
    "Setting": "settings",
    "settings_for": "settings",
    "write_run": "measures",
}

__getattr__ = lazy_names(__name__, _HOMES)


def __dir__() -> list[str]:
    return __all__
