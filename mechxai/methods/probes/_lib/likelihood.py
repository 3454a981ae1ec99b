"""The likelihood of labels given a probe's outputs, with its gradients; two classes share one output column."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

NUMBERS = 0  # stands for regression, in place of a number of classes


@dataclass(frozen=True)
class Likelihood:
    """The likelihood of class labels (logistic) or of numbers (Gaussian with unit variance).

    Outputs are ``[..., column]``: for two classes, the log-odds of the second; for more classes, one logit each; for
    numbers, the prediction.

    Attributes:
        n_classes: 2 or more, or `NUMBERS`.
    """

    n_classes: int

    @property
    def n_columns(self) -> int:
        """Outputs per target."""
        return self.n_classes if self.n_classes > 2 else 1

    def curvature(self) -> float:
        """The second derivative of the loss with respect to an output, at balanced classes."""
        return 1.0 if self.n_classes == NUMBERS else (1 / self.n_classes) * (1 - 1 / self.n_classes)

    def dense(self, labels: Tensor) -> Float[Tensor, "*places column"]:
        """Labels in the shape of outputs: 0 or 1 per column; numbers unchanged; arbitrary for unlabelled rows."""
        if self.n_classes > 2:
            return F.one_hot(labels.clamp_min(0), self.n_classes).float()
        return labels.float()[..., None]

    def regressed(self, dense: Float[Tensor, "*places column"]) -> Float[Tensor, "*places column"]:
        """The targets of least squares: -1 and 1 for two classes, so that its outputs are read like log-odds."""
        return 2 * dense - 1 if self.n_classes == 2 else dense

    def probabilities(self, outputs: Float[Tensor, "*places column"]) -> Float[Tensor, "*places klass"]:
        """The probability of every class; undefined for numbers."""
        if self.n_classes > 2:
            return outputs.softmax(-1)
        second = outputs.sigmoid()
        return torch.cat([1 - second, second], -1)

    def predicted(self, outputs: Float[Tensor, "*places column"]) -> Int[Tensor, "*places"]:
        """The most probable class."""
        return outputs.argmax(-1) if self.n_classes > 2 else (outputs[..., 0] > 0).long()

    def residual(
        self, outputs: Float[Tensor, "*places column"], dense: Float[Tensor, "*labels column"]
    ) -> Float[Tensor, "*places column"]:
        """The derivative of `loss` with respect to the outputs."""
        if self.n_classes == NUMBERS:
            return outputs - dense
        return (outputs.softmax(-1) if self.n_classes > 2 else outputs.sigmoid()) - dense

    def loss(
        self, outputs: Float[Tensor, "*places column"], dense: Float[Tensor, "*labels column"]
    ) -> Float[Tensor, "*places"]:
        """Negative log-likelihood in nats; half the squared error of numbers."""
        if self.n_classes == NUMBERS:
            return (outputs - dense).square().sum(-1) / 2
        if self.n_classes > 2:
            return outputs.logsumexp(-1) - (outputs * dense).sum(-1)
        return (F.softplus(outputs) - outputs * dense)[..., 0]
