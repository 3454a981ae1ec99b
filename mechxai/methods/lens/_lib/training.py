"""The training loop of tuned lenses, its order of sequences, and its checkpoints."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mechxai.core.errors import ArtifactError, ModelSupportError, NumericsError
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.core.work_clock import add_earlier_work, work_seconds
from mechxai.engine.checkpoint import TENSORS, CheckpointStore
from mechxai.engine.execution import Execution
from mechxai.engine.progress import ProgressBar
from mechxai.methods.lens._lib.lens_gradients import LensGradients
from mechxai.methods.lens._lib.training_settings import Recipe, rate
from mechxai.model.backends.limits import check_tokens
from mechxai.model.hooked_model import HookedModel

_STATE = "state"


@dataclass
class State:
    """The state of a training between two steps.

    Attributes:
        A: the translators' matrices, ``[layer, d_model, d_model]``.
        b: the translators' biases, ``[layer, d_model]``.
        optimizer: the optimizer of ``A`` and ``b``.
        step: number of the next step.
        losses: the loss of each step so far, ``[layer]``.
        seconds: of work so far.
    """

    A: Tensor
    b: Tensor
    optimizer: torch.optim.Optimizer
    step: int
    losses: list[Tensor]
    seconds: float = 0.0


def trained(
    model: HookedModel, tokens: Tokens, recipe: Recipe, *, lengths: PromptInts | None, execution: Execution
) -> State:
    """The state after the last step; training resumes from the last checkpoint in ``execution.cells``, if any."""
    folder, log = execution.cells, execution.log
    check_tokens(tokens, model.architecture, model.name)
    if not model.architecture.causal:
        raise ModelSupportError(
            f"A tuned lens needs a causal language model: {model.name} is bidirectional", fix="Use a causal model"
        )
    lengths = tokens.new_full((len(tokens),), tokens.shape[1]) if lengths is None else lengths.to(tokens)
    key = Fingerprints()([recipe, model, model.processing, tokens, lengths])
    checkpoints = CheckpointStore(folder, key, TENSORS)
    state = _initial_state(model, recipe)
    _restore(state, checkpoints, folder)
    sequences = _Order(len(tokens), recipe.seed)
    per_step = max(1, recipe.tokens_per_step // tokens.shape[1])
    total = recipe.steps * per_step * tokens.shape[1]
    with ProgressBar("tuned lens", total, shown=execution.progress, unit="tokens") as bar:
        bar.advance(state.step * per_step * tokens.shape[1], computed=False)
        while state.step < recipe.steps:
            started = work_seconds()
            rows = sequences.rows(state.step * per_step, per_step)
            losses = LensGradients(model, recipe.loss, state.A, state.b).of_step(tokens[rows], lengths[rows])
            _update(state, recipe)
            state.losses.append(losses)
            state.step += 1
            state.seconds += work_seconds() - started
            if log is not None:
                log({"lens/step": float(state.step), "lens/loss": float(losses.mean())} | _by_layer(losses))
            if state.step % recipe.checkpoint_every == 0 or state.step == recipe.steps:
                checkpoints.save(_STATE, _tensors(state))
            bar.advance(per_step * tokens.shape[1])
    return state


def _by_layer(losses: Tensor) -> dict[str, float]:
    return {f"lens/loss_layer_{layer}": float(loss) for layer, loss in enumerate(losses)}


@dataclass(frozen=True)
class _Order:
    """The order of the sequences: every epoch shuffles all of them anew."""

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
    """Takes one optimizer step."""
    if recipe.bias_only:
        state.A.grad = None
    trained_parameters = [parameter for parameter in (state.A, state.b) if parameter.grad is not None]
    norm = torch.nn.utils.clip_grad_norm_(trained_parameters, recipe.clip)
    if not math.isfinite(float(norm)):
        raise NumericsError(
            f"The gradient of the lens is not finite at step {state.step}",
            fix="Use a smaller lr_scale, or the model in float32",
        )
    for group in state.optimizer.param_groups:
        group["lr"] = rate(recipe) * (1 - state.step / recipe.steps)
    state.optimizer.step()


# State ----------------------------------------------------------------------------------------------------------------


def _initial_state(model: HookedModel, recipe: Recipe) -> State:
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


def _tensors(state: State) -> dict[str, Tensor]:
    """A state as named tensors; those of the optimizer are named by their parameter's number."""
    optimizer = {
        f"optimizer.{number}.{name}": torch.as_tensor(value)
        for number, values in state.optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if value is not None
    }
    return {
        "A": state.A,
        "b": state.b,
        "step": torch.tensor(state.step),
        "losses": torch.stack(state.losses),
        "seconds": torch.tensor(state.seconds, dtype=torch.float64),
        **optimizer,
    }


def _restore(state: State, checkpoints: CheckpointStore[Mapping[str, Tensor]], folder: Path | None) -> None:
    """Restores the state of the last checkpoint, if there is one."""
    tensors = checkpoints.load(_STATE)
    if tensors is None:
        if checkpoints.holds_another(_STATE):
            raise ArtifactError(
                f"{folder} holds checkpoints of another training (recipe, model or tokens differ)",
                fix="Choose another folder, or delete this one",
            )
        return
    with torch.no_grad():
        state.A.copy_(tensors["A"])
        state.b.copy_(tensors["b"])
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, number, moment = name.split(".")
            moments.setdefault(int(number), {})[moment] = tensor
    state.optimizer.load_state_dict({**state.optimizer.state_dict(), "state": moments})
    state.step = int(tensors["step"])
    state.losses = list(tensors["losses"])
    state.seconds = float(tensors["seconds"])
    add_earlier_work(state.seconds)
