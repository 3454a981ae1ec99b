"""Probes with one hidden layer; all probes of a block are trained together."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from mechxai.methods.probes._lib.likelihood import NUMBERS, Likelihood

_HIDDEN, _EPOCHS, _BATCH, _RATE, _DECAY, _PATIENCE = 64, 40, 256, 1e-3, 1e-2, 5


@dataclass(frozen=True)
class Examples:
    """Rows and labels of one split.

    Attributes:
        rows: standardised activations, ``[set, row, feature]``.
        dense: labels in the form of `Likelihood.dense`, ``[set, row, target, column]``.
        weights: weight of each row, ``[set, row, target]``.
    """

    rows: Tensor
    dense: Tensor
    weights: Tensor


def mlp_outputs(
    train: Examples, validation: Examples, rows: Float[Tensor, "set row feature"], *, likelihood: Likelihood, seed: int
) -> Float[Tensor, "set row target column"]:
    """Trains the probes and returns their outputs for ``rows``.

    64 rectified units, AdamW in batches of 256, at most 40 epochs. Each probe keeps the weights of its best epoch on
    the validation rows; training ends when no probe has improved for 5 epochs.

    Args:
        train: training examples.
        validation: examples for early stopping.
        rows: rows to compute outputs for.
        likelihood: likelihood of the labels.
        seed: seed of initial weights and batch order.
    """
    if likelihood.n_classes == NUMBERS:  # outputs start near 0 and move slowly, so labels are standardised
        center, scale = _spread(train)
        parts = [replace(split, dense=(split.dense - center) / scale) for split in (train, validation)]
        return _trained_outputs(parts[0], parts[1], rows, likelihood=likelihood, seed=seed) * scale + center
    return _trained_outputs(train, validation, rows, likelihood=likelihood, seed=seed)


def _spread(train: Examples) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of every target, ``[set, 1, target, column]``."""
    weights = train.weights[..., None]
    center = (weights * train.dense).sum(1, keepdim=True)
    scale = (weights * (train.dense - center).square()).sum(1, keepdim=True).sqrt()
    return center, torch.where(scale > 0, scale, 1.0)


def _trained_outputs(
    train: Examples, validation: Examples, rows: Tensor, *, likelihood: Likelihood, seed: int
) -> Float[Tensor, "set row target column"]:
    generator = torch.Generator(device="cpu").manual_seed(seed)
    n_sets, n_rows, n_features = train.rows.shape
    n_targets, n_columns = train.dense.shape[2:]

    def initial(*shape: int) -> Tensor:
        value = torch.randn(n_sets, n_targets, *shape, generator=generator) / shape[0] ** 0.5
        return value.to(train.rows).requires_grad_()

    with torch.enable_grad():
        weights = [initial(n_features, _HIDDEN), initial(_HIDDEN + 1, n_columns)]
        optimizer = torch.optim.AdamW(weights, lr=_RATE, weight_decay=_DECAY)
        best_loss, best_weights, stale = None, [weight.detach().clone() for weight in weights], 0
        for _ in range(_EPOCHS):
            for batch in torch.randperm(n_rows, generator=generator).split(_BATCH):
                chosen = batch.to(train.rows.device)
                outputs = _outputs(weights, train.rows[:, chosen])
                losses = likelihood.loss(outputs, train.dense[:, chosen]) * train.weights[:, chosen]
                optimizer.zero_grad(set_to_none=True)
                (losses.sum() * n_rows / len(chosen)).backward()
                optimizer.step()
            with torch.no_grad():
                loss = _loss(weights, validation, likelihood)
                better = torch.ones_like(loss, dtype=torch.bool) if best_loss is None else loss < best_loss
                best_loss = loss if best_loss is None else torch.where(better, loss, best_loss)
                for best, weight in zip(best_weights, weights, strict=True):
                    best.copy_(torch.where(better[..., None, None], weight, best))
            stale = 0 if bool(better.any()) else stale + 1
            if stale == _PATIENCE:
                break
    with torch.no_grad():
        return _outputs(best_weights, rows)


def _outputs(weights: list[Tensor], rows: Tensor) -> Tensor:
    hidden = torch.einsum("bne,bteh->bnth", rows, weights[0]).relu()
    return torch.einsum("bnth,bthk->bntk", hidden, weights[1][:, :, :-1]) + weights[1][:, None, :, -1]


def _loss(weights: list[Tensor], examples: Examples, likelihood: Likelihood) -> Tensor:
    return (likelihood.loss(_outputs(weights, examples.rows), examples.dense) * examples.weights).sum(1)
