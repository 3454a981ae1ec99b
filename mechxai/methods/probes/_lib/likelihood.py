"""What a probe's outputs say of labels: probabilities, their logarithms, and gradients; two classes take one column."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

NUMBERS = 0  # in place of a count of classes


@dataclass(frozen=True)
class Likelihood:
    """Of labels that are classes (logistic), or numbers (Gaussian of unit variance).

    Outputs are ``[..., column]``: of two classes the log-odds of the second; of more, a logit each; of numbers the
    prediction.

    Attributes:
        n_classes: 2 or more, or `NUMBERS`.
    """

    n_classes: int

    @property
    def n_columns(self) -> int:
        """Outputs per target."""
        return self.n_classes if self.n_classes > 2 else 1

    def curvature(self) -> float:
        """A typical second derivative with respect to an output, at balanced classes."""
        return 1.0 if self.n_classes == NUMBERS else (1 / self.n_classes) * (1 - 1 / self.n_classes)

    def dense(self, labels: Tensor) -> Float[Tensor, "*places column"]:
        """Labels as outputs should be: 0 or 1 per column; numbers as they are. Unlabelled rows get anything."""
        if self.n_classes > 2:
            return F.one_hot(labels.clamp_min(0), self.n_classes).float()
        return labels.float()[..., None]

    def regressed(self, dense: Float[Tensor, "*places column"]) -> Float[Tensor, "*places column"]:
        """What least squares aims at, so that its outputs are read like others: -1 and 1 for two classes."""
        return 2 * dense - 1 if self.n_classes == 2 else dense

    def probabilities(self, outputs: Float[Tensor, "*places column"]) -> Float[Tensor, "*places klass"]:
        """Of every class; numbers have none."""
        if self.n_classes > 2:
            return outputs.softmax(-1)
        second = outputs.sigmoid()
        return torch.cat([1 - second, second], -1)

    def predicted(self, outputs: Float[Tensor, "*places column"]) -> Int[Tensor, "*places"]:
        """The likeliest class."""
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
