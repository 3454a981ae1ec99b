"""The plan of a method and its expected cost, before it runs."""

from dataclasses import dataclass
from html import escape

import torch

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method
from mechxai.core.reasoning import ReasoningBatch
from mechxai.engine.execution import FUSED, LEVEL_NAMES, Execution
from mechxai.engine.plan import Plan, Planned
from mechxai.engine.work import layer_seconds, measured_rate
from mechxai.model.hooked_model import HookedModel

# Share of the machine's matrix rate that each level reaches in the benchmarks; for expected times only.
_SHARE = (0.35, 0.35, 0.6, 0.75, 0.8)

_ROW_SECONDS = 50e-6  # bookkeeping per row
_ONCE_SECONDS = 0.05  # planning and confidence intervals


@dataclass(frozen=True, repr=False)
class Explanation:
    """A plan with its expected time. ``print`` and notebooks show it as a table.

    Attributes:
        title: the method, its site and the model.
        plan: the plan.
        seconds: expected time on this machine, without the self-check at first use.
        one_per_cell_seconds: expected time of one forward pass per cell and prompt at the same rate.
    """

    title: str
    plan: Plan
    seconds: float
    one_per_cell_seconds: float

    def rows(self) -> list[tuple[str, str]]:
        """The rows of the table: label and value."""
        p = self.plan
        return [
            ("cells", f"{p.n_cells:,} on {p.n_prompts:,} prompts"),
            ("without effect, not computed", f"{p.noops:,} of {p.forward_passes:,}"),
            ("computed", f"{p.n_rows:,} rows in {p.n_waves:,} waves"),
            ("level", f"{p.level} ({LEVEL_NAMES[p.level]})"),
            ("work", f"{p.share:.2%} of one forward pass per cell and prompt"),
            ("arithmetic", f"{p.flops / 1e9:,.1f} GFLOP"),
            ("memory beside the model", f"about {p.peak_bytes / 2**20:,.0f} MiB"),
            ("expected time", f"{_duration(self.seconds)} (one pass per cell: {_duration(self.one_per_cell_seconds)})"),
        ]

    def __str__(self) -> str:
        width = max(len(label) for label, _ in self.rows())
        return "\n".join([self.title, *(f"  {label:<{width}}  {value}" for label, value in self.rows())])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        rows = "".join(f"<tr><td>{escape(label)}</td><td>{escape(value)}</td></tr>" for label, value in self.rows())
        return f"<table><caption>{escape(self.title)}</caption>{rows}</table>"


def explain_plan(
    method: Method,
    model: HookedModel,
    batch: ContrastBatch | ReasoningBatch,
    *,
    execution: Execution = Execution(),  # noqa: B008 - frozen
) -> Explanation:
    """The plan of a method on these prompts and its expected cost; runs no prompt.

    Args:
        method: a method that runs a sweep (patching, ablation, tracing).
        model: the model.
        batch: the prompts.
        execution: how the method would run.

    Returns:
        Cells, cells without effect, waves, level, arithmetic, memory and expected time; ``print`` shows a table.

    Raises:
        ConfigError: the method runs no sweep that could be planned.

    Cost: a tenth of a second, once, to measure this machine's matrix products.
    """
    if not isinstance(method, Planned):
        raise ConfigError(f"{method.card.name} has no plan: it runs no sweep", allowed="methods with plan()")
    planned = method.plan(model, batch, execution=execution)
    settings = method.settings()
    site = settings.get("site")
    return Explanation(
        f"{settings['name']}{f' of {site}' if site else ''} on {model.name}",
        planned,
        expected_seconds(model, planned),
        _one_per_cell(model, planned),
    )


def expected_seconds(model: HookedModel, planned: Plan) -> float:
    """The expected time of a plan on this machine, in seconds."""
    rate = _rate(model) * _SHARE[planned.level]
    calls = (planned.n_waves + len(planned.chunks)) * planned.n_layers
    call_seconds = calls * layer_seconds(model.device.type, fused=planned.level == FUSED)
    return planned.flops / rate + call_seconds + planned.n_rows * _ROW_SECONDS + _ONCE_SECONDS


def _one_per_cell(model: HookedModel, planned: Plan) -> float:
    blocks = planned.flops * planned.forward_passes * planned.width * planned.n_layers / max(planned.work, 1.0)
    unembedding = 2.0 * planned.width * model.architecture.d_model * model.architecture.d_vocab * planned.forward_passes
    calls = planned.forward_passes * planned.n_layers
    return (blocks + unembedding) / (_rate(model) * _SHARE[0]) + calls * layer_seconds(model.device.type, fused=False)


def _rate(model: HookedModel) -> float:
    return measured_rate(
        model.device.type, model.dtype, d_model=model.architecture.d_model, threads=torch.get_num_threads()
    )


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:,.0f} ms"
    if seconds < 120:
        return f"{seconds:,.1f} s"
    return f"{seconds / 60:,.1f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
