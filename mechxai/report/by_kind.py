"""The tables and sentences of each kind of result, shown beside its figure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import xarray as xr

from mechxai.core.result import Result, ResultKind
from mechxai.figures.tokens import token_html
from mechxai.report.chain_tables import chain_tables
from mechxai.report.circuit_sentences import (
    criteria_sentences,
    curve_sentences,
    hypothesis_sentences,
    stability_sentences,
)
from mechxai.report.comparison_tables import circuits_tables, comparison_table
from mechxai.report.head_tables import census, head_table

MAX_PROMPTS = 6  # with coloured tokens
Tables = dict[str, list[dict[str, object]]]


@dataclass(frozen=True)
class KindReport:
    """How a report presents a kind of result, beside its figure and its largest cells.

    Attributes:
        tables: ``(result, model card)`` -> title -> rows; None without tables.
        circuit_sentences: the sentences that a circuit account takes from the result's data; None without any.
        colored_tokens: whether the prompts are shown as coloured tokens.
    """

    tables: Callable[[Result, Mapping[str, Any]], Tables] | None = None
    circuit_sentences: Callable[[xr.Dataset], list[str]] | None = None
    colored_tokens: bool = False


def result_tables(result: Result, card: Mapping[str, Any]) -> Tables:
    """The tables shown beside a result's figure, by title; empty for most kinds.

    Args:
        result: of any kind.
        card: of the model, with its known circuit under ``truth`` if there is one.
    """
    tables = kind_report(result).tables
    return {} if tables is None else tables(result, card)


def token_paragraphs(result: Result) -> list[str]:
    """The first prompts as coloured tokens in HTML; empty unless the result holds token attributions."""
    if not kind_report(result).colored_tokens:
        return []
    return [token_html(result, prompt) for prompt in range(min(MAX_PROMPTS, result.data.sizes["prompt"]))]


def kind_report(result: Result) -> KindReport:
    """The entry of `REPORTS` for the result's kind."""
    return REPORTS.get(result.info.kind, _PLAIN)


def _head_tables(result: Result, card: Mapping[str, Any]) -> Tables:
    return dict([head_table(result, card.get("truth")), census(result)])


def _circuits_tables(result: Result, card: Mapping[str, Any]) -> Tables:
    del card
    return circuits_tables(result)


def _comparison_table(result: Result, card: Mapping[str, Any]) -> Tables:
    del card
    return dict([comparison_table(result)])


def _chain_tables(result: Result, card: Mapping[str, Any]) -> Tables:
    del card
    return chain_tables(result)


_PLAIN = KindReport()
_CHAIN = KindReport(tables=_chain_tables)
REPORTS: Mapping[ResultKind, KindReport] = {
    "grid": _PLAIN,
    "patching": _PLAIN,
    "ablation": _PLAIN,
    "head_roles": KindReport(tables=_head_tables),
    "edges": _PLAIN,
    "circuit_curve": KindReport(circuit_sentences=curve_sentences),
    "circuit_comparison": KindReport(tables=_circuits_tables),
    "circuit_stability": KindReport(circuit_sentences=stability_sentences),
    "circuit_criteria": KindReport(circuit_sentences=criteria_sentences),
    "circuit_tests": KindReport(circuit_sentences=hypothesis_sentences),
    "routes": _PLAIN,
    "lens": _PLAIN,
    "lens_training": _PLAIN,
    "lens_evaluation": _PLAIN,
    "contributions": _PLAIN,
    "neuron_factors": _PLAIN,
    "probes": _PLAIN,
    "probe_check": _PLAIN,
    "faithfulness": _PLAIN,
    "attribution_comparison": KindReport(tables=_comparison_table),
    "rephrasing_stability": _PLAIN,
    "attention": _PLAIN,
    "chain_curve": _CHAIN,
    "biasing": _CHAIN,
    "planted_error": _CHAIN,
    "vote": _CHAIN,
    "chain_flow": _CHAIN,
    "attribution": KindReport(colored_tokens=True),
}
