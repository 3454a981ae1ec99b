"""The training of tuned lenses: the loop, its order of sequences, its checkpoints."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mechxai.core.errors import ArtifactError, ModelSupportError, NumericsError
from mechxai.core.files import atomic_write
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.engine.execution import Execution
from mechxai.engine.progress import Bar
from mechxai.methods.lens._lib.lens_gradients import LensGradients
from mechxai.methods.lens._lib.training_settings import Recipe, rate
from mechxai.model.backends.limits import check_tokens
from mechxai.model.hooked_model import HookedModel

_STATE = "state.pt"


@dataclass
class State:
    """Where training stands.

    Attributes:
        A: ``[layer, d_model, d_model]``; likewise ``b``, ``[layer, d_model]``.
        optimizer: of both.
        step: the next one.
        losses: of each step so far, ``[layer]``.
    """

    A: Tensor
    b: Tensor
    optimizer: torch.optim.Optimizer
    step: int
    losses: list[Tensor]


def trained(
    model: HookedModel, tokens: Tokens, recipe: Recipe, *, lengths: PromptInts | None, execution: Execution
) -> State:
    """The state after the last step; from the last checkpoint in ``execution.cells`` on, where there is one."""
    folder, log = execution.cells, execution.log
    check_tokens(tokens, model.architecture, model.name)
    if not model.architecture.causal:
        raise ModelSupportError(
            f"A tuned lens of {model.name} was asked", got="a bidirectional model", fix="use a causal language model"
        )
    lengths = tokens.new_full((len(tokens),), tokens.shape[1]) if lengths is None else lengths.to(tokens)
    key = Fingerprints()([recipe, model, model.processing, tokens, lengths])
    state = _begun(model, recipe)
    if folder is not None:
        _restore(state, folder, key)
    sequences = _Order(len(tokens), recipe.seed)
    per_step = max(1, recipe.tokens_per_step // tokens.shape[1])
    total = recipe.steps * per_step * tokens.shape[1]
    with Bar("tuned lens", total, shown=execution.progress, unit="tokens") as bar:
        bar.advance(state.step * per_step * tokens.shape[1], computed=False)
        while state.step < recipe.steps:
            rows = sequences.rows(state.step * per_step, per_step)
            losses = LensGradients(model, recipe.loss, state.A, state.b).of_step(tokens[rows], lengths[rows])
            _update(state, recipe)
            state.losses.append(losses)
            state.step += 1
            if log is not None:
                log({"lens/step": float(state.step), "lens/loss": float(losses.mean())} | _by_layer(losses))
            if folder is not None and (state.step % recipe.checkpoint_every == 0 or state.step == recipe.steps):
                _keep(state, folder, key)
            bar.advance(per_step * tokens.shape[1])
    return state


def _by_layer(losses: Tensor) -> dict[str, float]:
    return {f"lens/loss_layer_{layer}": float(loss) for layer, loss in enumerate(losses)}


@dataclass(frozen=True)
class _Order:
    """Which sequence comes when: every epoch all of them, in an order of its own."""

    n_sequences: int
    seed: int

    def rows(self, first: int, count: int) -> Tensor:
        return torch.cat(list(self._parts(first, count)))

    def _parts(self, first: int, count: int) -> Iterator[Tensor]:
        while count:
            epoch, at = divmod(first, self.n_sequences)
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            part = torch.randperm(self.n_sequences, generator=generator)[at : at + count]
            yield part
            first, count = first + len(part), count - len(part)


def _update(state: State, recipe: Recipe) -> None:
    """One optimiser step."""
    if recipe.bias_only:
        state.A.grad = None
    used = [parameter for parameter in (state.A, state.b) if parameter.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(used, recipe.clip)
    if not math.isfinite(float(norm)):
        raise NumericsError(
            f"The lens' gradient at step {state.step} is not finite",
            fix="use a smaller lr_scale, or the model in float32",
        )
    for group in state.optimizer.param_groups:
        group["lr"] = rate(recipe) * (1 - state.step / recipe.steps)
    state.optimizer.step()


# State ----------------------------------------------------------------------------------------------------------------


def _begun(model: HookedModel, recipe: Recipe) -> State:
    a = model.architecture
    A = torch.nn.Parameter(torch.zeros(a.n_layers, a.d_model, a.d_model, device=model.device))
    b = torch.nn.Parameter(torch.zeros(a.n_layers, a.d_model, device=model.device))
    if recipe.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam([A, b], lr=rate(recipe), amsgrad=True)
    else:
        optimizer = torch.optim.SGD(
            [A, b], lr=rate(recipe), momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    return State(A, b, optimizer, 0, [])


def _keep(state: State, folder: Path, key: str) -> None:
    content: dict[str, Any] = {
        "key": key,
        "A": state.A.detach(),
        "b": state.b.detach(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "losses": torch.stack(state.losses),
    }
    with atomic_write(folder / _STATE) as part:
        torch.save(content, part)


def _restore(state: State, folder: Path, key: str) -> None:
    """Puts the state back as it was at the last checkpoint, if there is one."""
    if not (folder / _STATE).is_file():
        return
    found = torch.load(  # noqa: TID251 - an optimiser's state is no plain table of tensors
        folder / _STATE, map_location=state.A.device, weights_only=True
    )
    if found["key"] != key:
        raise ArtifactError(
            f"Training a lens with checkpoints in {folder} was asked",
            got="checkpoints of another training (recipe, model or tokens differ)",
            fix="choose another folder, or delete this one",
        )
    with torch.no_grad():
        state.A.copy_(found["A"])
        state.b.copy_(found["b"])
    state.optimizer.load_state_dict(found["optimizer"])
    state.step = found["step"]
    state.losses = list(found["losses"].cpu())
