"""A tuned lens: one affine translator per layer, from its residual stream to one that the readout understands."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from safetensors.torch import load_file, save_file
from torch import Tensor

from mechxai.core.errors import ArtifactError, ModelSupportError
from mechxai.core.files import atomic_write, write_atomic
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.result import Result
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.engine.execution import Execution, Log
from mechxai.methods.lens._lib.training import trained
from mechxai.methods.lens._lib.training_settings import Recipe
from mechxai.model.hooked_model import HookedModel

_CONFIG, _WEIGHTS = "config.json", "translators.safetensors"
_FORMAT = "mechxai_tuned_lens"
_RESULT = "result.nc"  # of a run
_PARAMS = "params.pt"  # of the tuned-lens package
_KIND = "linear_tuned_lens"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Translators ``T_l(h) = h + A_l h + b_l`` for the residual stream before each block (Belrose et al. 2023).

    With A and b zero it is the logit lens. Make one with `train` or `load`; read with `mechxai.TunedLensReading`.

    Attributes:
        A: ``[layer, d_model, d_model]``.
        b: ``[layer, d_model]``.
        base: what it was trained on: model, processing, weight hash, hash of the unembedding.
        recipe: how it was trained; empty for an imported lens.
        losses: mean loss of every step and layer, ``[step, layer]``, in nats.
    """

    A: Float[Tensor, "layer d_model d_model"]
    b: Float[Tensor, "layer d_model"]
    base: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict[str, Any])
    losses: Float[Tensor, "step layer"] | None = None

    @classmethod
    def train(
        cls,
        model: HookedModel,
        tokens: Tokens,
        *,
        lengths: PromptInts | None = None,
        checkpoints: str | Path | None = None,
        log: Log | None = None,
        progress: bool = False,
        **recipe: Any,
    ) -> "TunedLens":
        """A lens trained on these tokens, all layers in one pass over them.

        Args:
            model: stays as it is.
            tokens: ``[sequence, pos]``; see `mechxai.lens_tokens` for texts.
            lengths: real tokens per row.
            checkpoints: folder in which the state is kept, so that training resumes where it was interrupted.
            log: told of each step's numbers (a tracker's `metrics`).
            progress: show a bar.
            **recipe: fields of `Recipe` (steps, tokens_per_step, optimizer ...).

        Raises:
            ConfigError: a recipe that cannot be.
            ModelSupportError: a model whose residual stream is not read by a final norm.
            ArtifactError: checkpoints of another training.

        Cost: per step, one forward pass over its tokens, and two unembeddings per token and layer.
        """
        chosen = Recipe(**recipe)
        how = Execution(cells=None if checkpoints is None else Path(checkpoints), log=log, progress=progress)
        state = trained(model, tokens, chosen, lengths=lengths, execution=how)
        return cls(state.A.detach(), state.b.detach(), base_of(model), asdict(chosen), torch.stack(state.losses))

    @classmethod
    def identity(cls, model: HookedModel) -> "TunedLens":
        """The logit lens as a tuned lens."""
        a = model.architecture
        zeros = torch.zeros(a.n_layers, a.d_model, a.d_model, device=model.device)
        return cls(zeros, zeros[:, 0].clone(), base_of(model))

    @property
    def name(self) -> str:
        """For records: the base model, and a hash of the translators."""
        return f"lens of {self.base.get('name')}, {Fingerprints()([self.A, self.b])[:16]}"

    def __call__(self, layer: int, stream: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """The stream of a layer, translated."""
        A, b = self.A[layer].to(stream), self.b[layer].to(stream)
        return stream + stream @ A.T + b

    def check(self, model: HookedModel) -> None:
        """Refuses another model than the lens was trained on.

        Raises:
            ModelSupportError: says in what they differ.
        """
        own = base_of(model)
        different = [name for name, value in self.base.items() if value is not None and own.get(name) != value]
        if different:
            name = different[0]
            raise ModelSupportError(
                f"A lens of {self.base.get('name')} was asked to read {model.name}",
                got=f"{name} is {own.get(name)!r}, the lens has {self.base[name]!r}",
                fix="load the model the lens was trained on, or train a lens for this one",
            )

    # Folders ---------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Writes ``config.json`` and ``translators.safetensors``; returns the folder."""
        target = Path(folder)
        tensors = {"A": self.A, "b": self.b} | ({} if self.losses is None else {"losses": self.losses})
        with atomic_write(target / _WEIGHTS) as part:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part)
        config = {"format": _FORMAT, "base": dict(self.base), "recipe": dict(self.recipe)}
        _write(target / _CONFIG, config)
        return target

    @classmethod
    def load(cls, folder: str | Path, model: HookedModel) -> "TunedLens":
        """The lens in a folder, on the model's device.

        The folder is one of `save`, one that the ``tuned-lens`` package saved, or a ``tuned_lens_train`` run's.

        Raises:
            ArtifactError: no such folder, or nothing of either kind in it.
            ModelSupportError: it was trained on another model.
        """
        source = Path(folder)
        there = (source / _CONFIG).is_file()
        config = json.loads((source / _CONFIG).read_text(encoding="utf-8")) if there else {}
        if (source / _RESULT).is_file():
            lens = _of_result(source / _RESULT, model)
        elif config.get("format") == _FORMAT and (source / _WEIGHTS).is_file():
            found = load_file(source / _WEIGHTS, device=str(model.device))
            lens = cls(found["A"], found["b"], config["base"], config["recipe"], found.get("losses"))
        elif config.get("lens_type") == _KIND and (source / _PARAMS).is_file():
            return _imported(source, config, model)
        else:
            neither = f"neither {_WEIGHTS} nor {_PARAMS} with a {_CONFIG} that fits it"
            raise ArtifactError(
                f"The lens in {source} was asked",
                got=neither if there else f"no {_CONFIG}",
                fix="give a folder written by TunedLens.save, by a tuned_lens_train run or by the tuned-lens package",
            )
        lens.check(model)
        return lens

    def export(self, folder: str | Path, model: HookedModel) -> Path:
        """Writes the lens as the ``tuned-lens`` package reads it: ``config.json`` and ``params.pt``.

        Raises:
            ModelSupportError: a lens of another model, or of folded weights, whose streams that package does not see.
        """
        self.check(model)
        _check_raw(model, "Exporting a lens to the tuned-lens package")
        target = Path(folder)
        state = {f"{layer}.weight": A.cpu().clone() for layer, A in enumerate(self.A)}
        state |= {f"{layer}.bias": b.cpu().clone() for layer, b in enumerate(self.b)}
        with atomic_write(target / _PARAMS) as part:
            torch.save(state, part)
        a = model.architecture
        config = {
            "base_model_name_or_path": model.name,
            "d_model": a.d_model,
            "num_hidden_layers": a.n_layers,
            "bias": True,
            "base_model_revision": model.revision,
            "unembed_hash": _their_hash(model),
            "lens_type": _KIND,
        }
        _write(target / _CONFIG, config)
        return target


def _of_result(path: Path, model: HookedModel) -> TunedLens:
    data = Result.load(path).data
    if "A" not in data or "base" not in data["A"].attrs:
        raise ArtifactError(
            f"The lens in {path} was asked", got="a result of another method", fix="give a lens' folder"
        )
    A, b, losses = (torch.from_numpy(data[name].values) for name in ("A", "b", "loss"))
    base, recipe = (json.loads(data["A"].attrs[name]) for name in ("base", "recipe"))
    return TunedLens(A.to(model.device), b.to(model.device), base, recipe, losses)


def base_of(model: HookedModel) -> dict[str, Any]:
    """What decides whether a lens fits a model."""
    W_U, _ = model.backend.unembedding()
    return {
        "name": model.name,
        "processing": model.processing,
        "weight_hash": model.weight_hash,
        "unembedding_hash": Fingerprints()(W_U.detach().float()),
        "d_model": model.architecture.d_model,
        "n_layers": model.architecture.n_layers,
    }


def lens_tokens(model: HookedModel, texts: Sequence[str], length: int = 256) -> Tokens:
    """Texts as training rows ``[sequence, pos]`` of one length: joined by the end-of-text token, cut into chunks.

    Args:
        model: whose tokenizer it is.
        texts: documents.
        length: tokens per row, the leading end-of-text token included.

    Raises:
        ArtifactError: fewer tokens than one row.
    """
    end = model.text.bos
    joined: list[int] = []
    for text in texts:
        joined += model.text.bare_ids(text) + ([] if end is None else [end])
    size = length - (end is not None)
    rows = [joined[first : first + size] for first in range(0, len(joined) - size + 1, size)]
    if not rows:
        raise ArtifactError(f"Rows of {length} tokens were asked", got=f"{len(joined)} tokens in all", fix="more text")
    return torch.tensor([row if end is None else [end, *row] for row in rows])


def _imported(source: Path, config: Mapping[str, Any], model: HookedModel) -> TunedLens:
    _check_raw(model, "A lens of the tuned-lens package")
    state = torch.load(  # noqa: TID251 - that package's format
        source / _PARAMS, map_location=model.device, weights_only=True
    )
    a = model.architecture
    sizes = (config.get("num_hidden_layers"), config.get("d_model"))
    hashed = config.get("unembed_hash")
    if sizes != (a.n_layers, a.d_model) or (hashed and hashed != _their_hash(model)):
        raise ModelSupportError(
            f"A lens of {config.get('base_model_name_or_path')} was asked to read {model.name}",
            got=f"{sizes[0]} layers of {sizes[1]}" if sizes != (a.n_layers, a.d_model) else "another unembedding",
            fix="load the model the lens was trained on",
        )
    A = torch.stack([state[f"{layer}.weight"].float() for layer in range(a.n_layers)])
    biases = [state.get(f"{layer}.bias") for layer in range(a.n_layers)]
    b = torch.stack([torch.zeros(a.d_model).to(A) if one is None else one.float() for one in biases])
    return TunedLens(A, b, base_of(model))


def _check_raw(model: HookedModel, what: str) -> None:
    if model.processing != "raw":
        raise ModelSupportError(
            f"{what} was asked of {model.name}",
            got=f"processing={model.processing!r}, whose residual streams are centred",
            fix="load the model with processing='raw'",
        )


def _their_hash(model: HookedModel) -> str:
    """The ``tuned-lens`` package's hash of an unembedding: of its abbreviated print-out, one digit kept."""
    W_U, _ = model.backend.unembedding()
    return hashlib.sha256(np.array_str(W_U.T.detach().cpu().numpy(), precision=1).encode()).hexdigest()


def _write(path: Path, config: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(config, indent=2, default=str) + "\n")
