"""Checks of classifiers and text encoders against Hugging Face."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor

import mechxai as mx
from tests.families.outcomes import Check, Measured

TEXTS = ["Mary gave a drink to John.", "The keys are on the table, near the cabinet and the old park, where John was."]
REFERENCES = ["a drink", "the old table"]
INTEGRAL = 0.06
SUM = 1e-3


@dataclass
class SequenceSubject:
    """A classifier or an encoder, loaded by MechXAI and by Hugging Face."""

    folder: Path
    task: str

    @cached_property
    def model(self) -> Any:
        if self.task == "encoder":
            return mx.load_encoder(str(self.folder), references=REFERENCES, device="cpu")
        return mx.load_classifier(str(self.folder), device="cpu")

    @cached_property
    def hf(self) -> Any:
        architecture = transformers.AutoConfig.from_pretrained(self.folder).architectures[0]
        kind = getattr(transformers, architecture)
        return kind.from_pretrained(self.folder, dtype=torch.float32, attn_implementation="eager").eval()

    @cached_property
    def tokenizer(self) -> Any:
        return transformers.AutoTokenizer.from_pretrained(self.folder)

    @torch.no_grad()
    def outputs(self, text: str) -> Tensor:
        """Hugging Face's class logits, or cosine similarities with the references and 0 for none of them."""
        if self.task == "classifier":
            return self.hf(**self._ids(text)).logits[0]
        own = self._embedding(text)
        return torch.tensor([float(own @ self._embedding(reference)) for reference in REFERENCES] + [0.0])

    def margins(self) -> np.ndarray:
        """The largest output minus the second, of every text."""
        top = torch.stack([self.outputs(text) for text in TEXTS]).topk(2).values
        return (top[:, 0] - top[:, 1]).numpy()

    def batch(self) -> Any:
        return mx.tasks.prompts(self.model, texts=TEXTS)

    def _ids(self, text: str) -> dict[str, Tensor]:
        ids = dict(self.tokenizer(text, return_tensors="pt"))
        ids.pop("token_type_ids", None)
        return ids

    def _embedding(self, text: str) -> Tensor:
        mean = self.hf(**self._ids(text)).last_hidden_state[0].mean(0)
        return mean / mean.norm()


def load(subject: SequenceSubject, measured: Measured) -> None:
    measured.note("causal" if subject.model.architecture.causal else "bidirectional")


def outputs(subject: SequenceSubject, measured: Measured) -> None:
    for text in TEXTS:
        tokens, lengths = subject.model.tokens(text)
        error = (subject.model.logits(tokens, lengths=lengths)[0, 0] - subject.outputs(text)).abs().max()
        measured.compare("outputs", error, 1e-4)


def padding(subject: SequenceSubject, measured: Measured) -> None:
    tokens, lengths = subject.model.tokens(TEXTS)
    values = subject.model.logits(tokens, lengths=lengths)[:, 0]
    for number, text in enumerate(TEXTS):
        measured.compare("padded against alone", (values[number] - subject.outputs(text)).abs().max(), 1e-4)


def integrated_gradients(subject: SequenceSubject, measured: Measured) -> None:
    _check_integral(subject, measured, mx.IntegratedGradients(n_steps=24))


def integrated_gradients_from_mean(subject: SequenceSubject, measured: Measured) -> None:
    """From the mean of Hugging Face's token embeddings."""
    _check_integral(subject, measured, mx.IntegratedGradients(n_steps=24, baseline="mean"))
    embeddings = subject.hf.get_input_embeddings()
    with torch.no_grad():
        right = embeddings(torch.arange(embeddings.weight.shape[0])).double().mean(0)
    error = (subject.model.mean_embedding().double() - right).abs().max() / right.abs().max()
    measured.compare("mean embedding", error, 1e-3)


def _check_integral(subject: SequenceSubject, measured: Measured, method: Any) -> None:
    data = method(subject.model, subject.batch()).data
    measured.compare("score", np.abs(data["target_score"].values - subject.margins()).max(), SUM)
    change = np.abs((data["target_score"] - data["baseline_score"]).values)
    measured.compare("delta", (np.abs(data["delta"].values) / np.maximum(change, 1e-2)).max(), INTEGRAL)


def kernel_shap(subject: SequenceSubject, measured: Measured) -> None:
    data = mx.KernelShap(n_samples=60)(subject.model, subject.batch()).data
    measured.compare("score", np.abs(data["target_score"].values - subject.margins()).max(), SUM)
    change = (data["target_score"] - data["baseline_score"]).values
    measured.compare("sum", np.abs(np.nansum(data["value"].values, 1) - change).max(), SUM)


def gradient_x_input(subject: SequenceSubject, measured: Measured) -> None:
    values = mx.GradientXInput()(subject.model, subject.batch()).data["value"].values
    measured.note(f"largest {np.nanmax(np.abs(values)):.2g}")


def rollout(subject: SequenceSubject, measured: Measured) -> None:
    _check_sum(mx.AttentionRollout()(subject.model, subject.batch()).data, measured)


def attention_scores(subject: SequenceSubject, measured: Measured) -> None:
    _check_sum(mx.AttentionScores()(subject.model, subject.batch()).data, measured)


def _check_sum(data: Any, measured: Measured) -> None:
    total = (data["value"].sum("pos") + data["on_special"]).values
    measured.compare("sum", np.abs(total - 1).max(), SUM)


def faithfulness(subject: SequenceSubject, measured: Measured) -> None:
    result = mx.Faithfulness(mx.Occlusion())(subject.model, subject.batch())
    measured.note(f"{len(result.data)} measures")


CHECKS: dict[str, Check] = {
    "load": load,
    "logits": outputs,
    "padding": padding,
    "integrated gradients": integrated_gradients,
    "integrated gradients from the mean": integrated_gradients_from_mean,
    "SHAP": kernel_shap,
    "gradient x input": gradient_x_input,
    "rollout": rollout,
    "attention": attention_scores,
    "faithfulness": faithfulness,
}
