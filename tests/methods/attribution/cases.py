"""The methods, prompts and linear model that the tests of attribution share."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch

import mechxai as mx
from mechxai.core.architecture import Architecture
from mechxai.methods.attribution._lib.adapters.protocol import DeletionScores
from mechxai.model.text import TextCodec

GRADIENTS = (mx.Saliency(), mx.GradientXInput(), mx.SmoothGrad(n_samples=5), mx.IntegratedGradients(n_steps=16))
REMOVALS = (mx.Occlusion(), mx.Lime(n_samples=60), mx.KernelShap(n_samples=80), mx.PartitionShap(n_samples=60))
ATTENTION = (mx.AttentionScores(), mx.AttentionRollout())
EVERY = (*GRADIENTS, *REMOVALS, *ATTENTION)
COMPLETE = (mx.IntegratedGradients, mx.KernelShap, mx.PartitionShap, mx.ExactShapley)


def named(methods):
    return [pytest.param(method, id=method.card.name) for method in methods]


def hooks_of(model):
    return sum(len(point.fwd_hooks) for point in model.backend.hooks.values())


def cut_to(batch, row):
    """One prompt of a batch without its padding."""
    one = batch.rows(slice(row, row + 1))
    width = int(one.lengths[0])
    return replace(one, clean=one.clean[:, :width], corrupted=one.corrupted[:, :width], axis=())


def logit_diff(model, batch):
    logits = model.logits(batch.clean, lengths=batch.lengths, at=batch.answer_pos[:, None])[:, 0].double()
    rows = torch.arange(len(batch))
    return (logits[rows, batch.answers[:, 0, 0]] - logits[rows, batch.wrong[:, 0, 0]]).cpu().numpy()


@dataclass(frozen=True)
class Linear:
    """A linear model: the score is ``sum over positions of e_p . w_p``, with an embedding table of its own."""

    table: torch.Tensor
    weights: torch.Tensor
    text: ClassVar = TextCodec(None, None)
    device: ClassVar = torch.device("cpu")
    identity: ClassVar = "linear"
    has_internals: ClassVar = True
    n_outputs: ClassVar = 10
    architecture: ClassVar = Architecture("linear", 1, 1, 1, 3, 3, 3, 10, 16)
    card: ClassVar[dict] = {}
    name: ClassVar = "linear"

    def info(self):
        return {"name": "linear"}

    def answer_text(self, answer):
        return str(answer)

    def embeddings(self, tokens):
        return self.table[tokens]

    def mean_embedding(self):
        return self.table.mean(0)

    def score(self, metric, batch, embeddings):
        return (embeddings * self.weights[: embeddings.shape[1]] * batch.mask[..., None]).sum((1, 2))

    def deletion_scores(self, deletion):
        rows = [
            self.score(deletion.metric, deletion.batch, torch.where(absent, deletion.baseline, deletion.embeddings))
            for absent in deletion.mask
        ]
        return DeletionScores(torch.stack(rows).double(), float(len(rows)))

    def patterns(self, batch, embeddings, layers):
        return torch.full((len(layers), len(batch), 1, batch.n_pos, batch.n_pos), 1 / batch.n_pos)
