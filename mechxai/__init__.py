"""MechXAI: mechanistic interpretability of transformer language models.

Ask a model which inputs mattered, which components carried it, what each layer knows, and whether the explanation is
true.

``import mechxai as mx`` loads nothing heavy; each name is fetched from its floor when first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mechxai import tasks as tasks
    from mechxai.core.activations import Activations as Activations
    from mechxai.core.batch import ContrastBatch as ContrastBatch
    from mechxai.core.edit import AddNoise as AddNoise
    from mechxai.core.edit import Intervention as Intervention
    from mechxai.core.edit import MeanAblate as MeanAblate
    from mechxai.core.edit import Patch as Patch
    from mechxai.core.edit import ProjectOut as ProjectOut
    from mechxai.core.edit import Replace as Replace
    from mechxai.core.edit import ReplaceFrom as ReplaceFrom
    from mechxai.core.edit import ResampleAblate as ResampleAblate
    from mechxai.core.edit import Steer as Steer
    from mechxai.core.edit import ZeroAblate as ZeroAblate
    from mechxai.core.grid import Grid as Grid
    from mechxai.core.probe_dataset import ProbeDataset as ProbeDataset
    from mechxai.core.reasoning import Problem as Problem
    from mechxai.core.reasoning import ReasoningBatch as ReasoningBatch
    from mechxai.core.reasoning import Wording as Wording
    from mechxai.core.result import Result as Result
    from mechxai.core.result import RunInfo as RunInfo
    from mechxai.core.site import Site as Site
    from mechxai.engine.activation_store import ActivationStore as ActivationStore
    from mechxai.engine.execution import Execution as Execution
    from mechxai.engine.explain_plan import explain_plan as explain_plan
    from mechxai.figures.attention_view import attention_html as attention_html
    from mechxai.figures.attention_view import save_attention as save_attention
    from mechxai.figures.circuit import circuit_figure as circuit_figure
    from mechxai.figures.plot import plot as plot
    from mechxai.figures.routes import routes_figure as routes_figure
    from mechxai.figures.tokens import method_rows as method_rows
    from mechxai.figures.tokens import token_bars as token_bars
    from mechxai.figures.tokens import token_html as token_html
    from mechxai.figures.tokens import token_text as token_text
    from mechxai.methods.attention.attention_patterns import AttentionPatterns as AttentionPatterns
    from mechxai.methods.attribution.attention_rollout import AttentionRollout as AttentionRollout
    from mechxai.methods.attribution.attention_scores import AttentionScores as AttentionScores
    from mechxai.methods.attribution.compare_attributions import CompareAttributions as CompareAttributions
    from mechxai.methods.attribution.exact_shapley import ExactShapley as ExactShapley
    from mechxai.methods.attribution.faithfulness import Faithfulness as Faithfulness
    from mechxai.methods.attribution.gradient_x_input import GradientXInput as GradientXInput
    from mechxai.methods.attribution.integrated_gradients import IntegratedGradients as IntegratedGradients
    from mechxai.methods.attribution.kernel_shap import KernelShap as KernelShap
    from mechxai.methods.attribution.lime import Lime as Lime
    from mechxai.methods.attribution.occlusion import Occlusion as Occlusion
    from mechxai.methods.attribution.partition_shap import PartitionShap as PartitionShap
    from mechxai.methods.attribution.rephrasing_stability import RephrasingStability as RephrasingStability
    from mechxai.methods.attribution.saliency import Saliency as Saliency
    from mechxai.methods.attribution.smooth_grad import SmoothGrad as SmoothGrad
    from mechxai.methods.circuits.acdc import Acdc as Acdc
    from mechxai.methods.circuits.attribution_patching import AttributionPatching as AttributionPatching
    from mechxai.methods.circuits.circuit_criteria import CircuitCriteria as CircuitCriteria
    from mechxai.methods.circuits.circuit_stability import CircuitStability as CircuitStability
    from mechxai.methods.circuits.circuit_tests import CircuitTests as CircuitTests
    from mechxai.methods.circuits.compare_circuits import CompareCircuits as CompareCircuits
    from mechxai.methods.circuits.edge_attribution import EdgeAttribution as EdgeAttribution
    from mechxai.methods.circuits.edge_patching import EdgePatching as EdgePatching
    from mechxai.methods.circuits.edge_pruning import EdgePruning as EdgePruning
    from mechxai.methods.circuits.evaluate_circuit import EvaluateCircuit as EvaluateCircuit
    from mechxai.methods.circuits.head_roles import HeadRoles as HeadRoles
    from mechxai.methods.circuits.information_flow_routes import InformationFlowRoutes as InformationFlowRoutes
    from mechxai.methods.circuits.path_patching import PathPatching as PathPatching
    from mechxai.methods.cot.adding_mistakes import AddingMistakes as AddingMistakes
    from mechxai.methods.cot.biasing_feature import BiasingFeature as BiasingFeature
    from mechxai.methods.cot.chain_flow import ChainFlow as ChainFlow
    from mechxai.methods.cot.early_answering import EarlyAnswering as EarlyAnswering
    from mechxai.methods.cot.filler_tokens import FillerTokens as FillerTokens
    from mechxai.methods.cot.paraphrasing import Paraphrasing as Paraphrasing
    from mechxai.methods.cot.planted_error import PlantedError as PlantedError
    from mechxai.methods.cot.self_consistency import SelfConsistency as SelfConsistency
    from mechxai.methods.lens._lib.trajectory import first_top1 as first_top1
    from mechxai.methods.lens._lib.tuned_lens import TunedLens as TunedLens
    from mechxai.methods.lens._lib.tuned_lens import lens_tokens as lens_tokens
    from mechxai.methods.lens.direct_logit_attribution import DirectLogitAttribution as DirectLogitAttribution
    from mechxai.methods.lens.logit_lens import LogitLens as LogitLens
    from mechxai.methods.lens.neuron_factors import NeuronFactors as NeuronFactors
    from mechxai.methods.lens.tuned_lens_eval import TunedLensEvaluation as TunedLensEvaluation
    from mechxai.methods.lens.tuned_lens_reading import TunedLensReading as TunedLensReading
    from mechxai.methods.lens.tuned_lens_train import TunedLensTraining as TunedLensTraining
    from mechxai.methods.patching.ablation import Ablation as Ablation
    from mechxai.methods.patching.activation_patching import ActivationPatching as ActivationPatching
    from mechxai.methods.patching.causal_tracing import CausalTracing as CausalTracing
    from mechxai.methods.probes._lib.probe_direction import probe_direction as probe_direction
    from mechxai.methods.probes.linear_probes import LinearProbes as LinearProbes
    from mechxai.methods.probes.probe_causal_check import ProbeCausalCheck as ProbeCausalCheck
    from mechxai.model.generation.endpoint import load_generator as load_generator
    from mechxai.model.generation.generator import Writing as Writing
    from mechxai.model.generation.local import LocalGenerator as LocalGenerator
    from mechxai.model.hooked_model import HookedModel as HookedModel
    from mechxai.model.load import load as load
    from mechxai.model.load import wrap as wrap
    from mechxai.model.sequence.black_box import black_box as black_box
    from mechxai.model.sequence.endpoint_scores import load_endpoint as load_endpoint
    from mechxai.model.sequence.load_sequence import load_classifier as load_classifier
    from mechxai.model.sequence.load_sequence import load_encoder as load_encoder
    from mechxai.report.circuit_account import circuit_account as circuit_account
    from mechxai.report.page import report as report

__version__ = "0.1.0"

_WHERE = {
    "core.activations": ("Activations",),
    "core.batch": ("ContrastBatch",),
    "core.edit": (
        "AddNoise",
        "Intervention",
        "MeanAblate",
        "Patch",
        "ProjectOut",
        "ReplaceFrom",
        "Replace",
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
    "methods.attention.attention_patterns": ("AttentionPatterns",),
    "methods.attribution.attention_rollout": ("AttentionRollout",),
    "methods.attribution.attention_scores": ("AttentionScores",),
    "methods.attribution.compare_attributions": ("CompareAttributions",),
    "methods.attribution.exact_shapley": ("ExactShapley",),
    "methods.attribution.faithfulness": ("Faithfulness",),
    "methods.attribution.gradient_x_input": ("GradientXInput",),
    "methods.attribution.integrated_gradients": ("IntegratedGradients",),
    "methods.attribution.kernel_shap": ("KernelShap",),
    "methods.attribution.lime": ("Lime",),
    "methods.attribution.occlusion": ("Occlusion",),
    "methods.attribution.partition_shap": ("PartitionShap",),
    "methods.attribution.rephrasing_stability": ("RephrasingStability",),
    "methods.attribution.saliency": ("Saliency",),
    "methods.attribution.smooth_grad": ("SmoothGrad",),
    "methods.circuits.acdc": ("Acdc",),
    "methods.circuits.edge_pruning": ("EdgePruning",),
    "methods.circuits.attribution_patching": ("AttributionPatching",),
    "methods.circuits.circuit_stability": ("CircuitStability",),
    "methods.circuits.circuit_criteria": ("CircuitCriteria",),
    "methods.circuits.compare_circuits": ("CompareCircuits",),
    "methods.circuits.circuit_tests": ("CircuitTests",),
    "methods.circuits.edge_attribution": ("EdgeAttribution",),
    "methods.circuits.edge_patching": ("EdgePatching",),
    "methods.circuits.evaluate_circuit": ("EvaluateCircuit",),
    "methods.circuits.head_roles": ("HeadRoles",),
    "methods.circuits.information_flow_routes": ("InformationFlowRoutes",),
    "methods.circuits.path_patching": ("PathPatching",),
    "methods.cot.adding_mistakes": ("AddingMistakes",),
    "methods.cot.biasing_feature": ("BiasingFeature",),
    "methods.cot.chain_flow": ("ChainFlow",),
    "methods.cot.early_answering": ("EarlyAnswering",),
    "methods.cot.filler_tokens": ("FillerTokens",),
    "methods.cot.paraphrasing": ("Paraphrasing",),
    "methods.cot.planted_error": ("PlantedError",),
    "methods.cot.self_consistency": ("SelfConsistency",),
    "methods.lens.direct_logit_attribution": ("DirectLogitAttribution",),
    "methods.lens.logit_lens": ("LogitLens",),
    "methods.lens.neuron_factors": ("NeuronFactors",),
    "methods.lens._lib.trajectory": ("first_top1",),
    "methods.lens._lib.tuned_lens": ("TunedLens", "lens_tokens"),
    "methods.lens.tuned_lens_eval": ("TunedLensEvaluation",),
    "methods.lens.tuned_lens_reading": ("TunedLensReading",),
    "methods.lens.tuned_lens_train": ("TunedLensTraining",),
    "methods.patching.ablation": ("Ablation",),
    "methods.patching.activation_patching": ("ActivationPatching",),
    "methods.patching.causal_tracing": ("CausalTracing",),
    "methods.probes.linear_probes": ("LinearProbes",),
    "methods.probes.probe_causal_check": ("ProbeCausalCheck",),
    "methods.probes._lib.probe_direction": ("probe_direction",),
    "report.circuit_account": ("circuit_account",),
    "model.hooked_model": ("HookedModel",),
    "model.load": ("load", "wrap"),
    "model.sequence.black_box": ("black_box",),
    "model.sequence.endpoint_scores": ("load_endpoint",),
    "model.generation.endpoint": ("load_generator",),
    "model.generation.generator": ("Writing",),
    "model.generation.local": ("LocalGenerator",),
    "model.sequence.load_sequence": ("load_classifier", "load_encoder"),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}
_PACKAGES = ("report", "tasks")  # calling the first writes a report
__all__ = [*_PACKAGES, *sorted(_HOME)]  # pyright: ignore[reportUnsupportedDunderAll]  # from the table above


def __getattr__(name: str) -> Any:
    if name in _PACKAGES:
        return importlib.import_module(f"mechxai.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'mechxai' has no attribute {name!r}")
    return getattr(importlib.import_module(f"mechxai.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
