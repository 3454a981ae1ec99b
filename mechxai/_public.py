"""The public names of ``import mechxai as mx``, and the stub that editors and type checkers read.

Methods are not listed here: each is public under its class name (`mechxai.methods.catalog`).
``python -m mechxai._public`` writes ``mechxai/__init__.pyi`` anew.
"""

from pathlib import Path

from mechxai.methods.catalog import public_methods

PACKAGES = ("report", "tasks")
"""Packages that are public themselves; calling the first writes a report."""

_NAMES = {
    "core.activations": ("Activations",),
    "core.batch": ("ContrastBatch",),
    "core.edit": (
        "AddNoise",
        "Intervention",
        "MeanAblate",
        "Patch",
        "ProjectOut",
        "Replace",
        "ReplaceFrom",
        "ResampleAblate",
        "Steer",
        "ZeroAblate",
    ),
    "core.grid": ("Grid",),
    "core.probe_dataset": ("ProbeDataset",),
    "core.reasoning": ("Problem", "ReasoningBatch", "Wording"),
    "core.result": ("Result", "RunInfo"),
    "core.site": ("Site",),
    "engine.activation_store": ("ActivationStore",),
    "engine.execution": ("Execution",),
    "engine.explain_plan": ("explain_plan",),
    "figures.attention_view": ("attention_html", "save_attention"),
    "figures.circuit": ("circuit_figure",),
    "figures.plot": ("plot",),
    "figures.routes": ("routes_figure",),
    "figures.tokens": ("method_rows", "token_bars", "token_html", "token_text"),
    "methods.lens._lib.trajectory": ("first_top1",),
    "methods.lens._lib.tuned_lens": ("TunedLens", "lens_tokens"),
    "methods.probes._lib.probe_direction": ("probe_direction",),
    "model.generation.endpoint": ("load_generator",),
    "model.generation.generator": ("Writing",),
    "model.generation.local": ("LocalGenerator",),
    "model.hooked_model": ("HookedModel",),
    "model.load": ("load", "wrap"),
    "model.sequence.black_box": ("black_box",),
    "model.sequence.endpoint_scores": ("load_endpoint",),
    "model.sequence.load_sequence": ("load_classifier", "load_encoder"),
    "report.circuit_account": ("circuit_account",),
}


def public_names() -> dict[str, str]:
    """Public name -> the module that defines it, methods included."""
    names = {name: f"mechxai.{module}" for module, listed in _NAMES.items() for name in listed}
    return dict(sorted((names | public_methods()).items()))


def stub() -> str:
    """The text of ``mechxai/__init__.pyi``."""
    lines = ['"""Written by ``python -m mechxai._public``; do not edit."""', ""]
    lines += [f"from mechxai import {package} as {package}" for package in PACKAGES]
    lines += [f"from {module} import {name} as {name}" for name, module in sorted(public_names().items(), key=_line)]
    return "\n".join([*lines, "", "__version__: str", ""])


def _line(pair: tuple[str, str]) -> tuple[str, str]:
    name, module = pair
    return module, name


if __name__ == "__main__":
    Path(__file__).with_name("__init__.pyi").write_text(stub(), encoding="utf-8")
