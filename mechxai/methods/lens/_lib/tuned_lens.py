"""Tuned lens: one affine translator per layer, from its residual stream to the basis of the last layer."""

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
from mechxai.core.pieces import file_checksum, sealed, unsealed
from mechxai.core.result import Result
from mechxai.core.shapes import PromptInts, Tokens
from mechxai.engine.execution import Execution, Log
from mechxai.methods.lens._lib.training import trained
from mechxai.methods.lens._lib.training_settings import Recipe
from mechxai.model.hooked_model import HookedModel

_CONFIG, _WEIGHTS = "config.json", "translators.safetensors"
_FORMAT = "mechxai_tuned_lens"
_TRAIN_AGAIN = "Copy the folder again, or train the lens again"
_RESULT = "result.nc"  # result of a run
_PARAMS = "params.pt"  # weights file of the tuned-lens package
_KIND = "linear_tuned_lens"


@dataclass(frozen=True, eq=False)
class TunedLens:
    """Translators ``T_l(h) = h + A_l h + b_l`` for the residual stream before each block (Belrose et al. 2023).

    With A and b zero it is the logit lens. Create a lens with `train` or `load`; read with `mechxai.TunedLensReading`.

    Attributes:
        A: translators, ``[layer, d_model, d_model]``.
        b: biases, ``[layer, d_model]``.
        base: identity of the model it was trained on: name, processing, weight hash, hash of the unembedding.
        recipe: the training recipe; empty for an imported lens.
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
        """Trains a lens on tokens, all layers in one pass over them.

        Args:
            model: the model; it is not changed.
            tokens: training tokens, ``[sequence, pos]``; see `mechxai.lens_tokens` for texts.
            lengths: number of real tokens per row.
            checkpoints: folder of the checkpoints, from which an interrupted training resumes.
            log: called with each step's numbers (a tracker's `metrics`).
            progress: show a progress bar.
            **recipe: fields of the recipe (steps, tokens_per_step, optimizer ...).

        Raises:
            ConfigError: an invalid recipe.
            ModelSupportError: a model whose residual stream is not read by a final norm.
            ArtifactError: checkpoints of another training.

        Cost: per step, one forward pass over its tokens, and two unembeddings per token and layer.
        """
        checked = Recipe(**recipe)
        execution = Execution(cells=None if checkpoints is None else Path(checkpoints), log=log, progress=progress)
        state = trained(model, tokens, checked, lengths=lengths, execution=execution)
        return cls(
            state.A.detach(), state.b.detach(), model_identity(model), asdict(checked), torch.stack(state.losses)
        )

    @classmethod
    def identity(cls, model: HookedModel) -> "TunedLens":
        """The logit lens as a tuned lens."""
        a = model.architecture
        zeros = torch.zeros(a.n_layers, a.d_model, a.d_model, device=model.device)
        return cls(zeros, zeros[:, 0].clone(), model_identity(model))

    @property
    def name(self) -> str:
        """The base model's name and a hash of the translators, for records."""
        return f"lens of {self.base.get('name')}, {Fingerprints()([self.A, self.b])[:16]}"

    def __call__(self, layer: int, stream: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """The translated stream of a layer."""
        A, b = self.A[layer].to(stream), self.b[layer].to(stream)
        return stream + stream @ A.T + b

    def check(self, model: HookedModel) -> None:
        """Refuses a model that the lens was not trained on.

        Raises:
            ModelSupportError: states the difference.
        """
        identity = model_identity(model)
        for name, value in self.base.items():
            if value is not None and identity.get(name) != value:
                raise ModelSupportError(
                    f"The lens of {self.base.get('name')} does not fit {model.name}: "
                    f"{name} is {identity.get(name)!r}, and {value!r} in the lens",
                    fix="Load the model that the lens was trained on, or train a lens for this one",
                )

    # Folders ---------------------------------------------------------------------------------------------------------

    def save(self, folder: str | Path) -> Path:
        """Writes ``config.json`` and ``translators.safetensors``; returns the folder."""
        target = Path(folder)
        tensors = {"A": self.A, "b": self.b} | ({} if self.losses is None else {"losses": self.losses})
        with atomic_write(target / _WEIGHTS) as part:
            save_file({name: value.cpu().contiguous() for name, value in tensors.items()}, part)
        config = {"format": _FORMAT, "base": dict(self.base), "recipe": dict(self.recipe)}
        write_atomic(target / _CONFIG, sealed({**config, "weights": file_checksum(target / _WEIGHTS)}))
        return target

    @classmethod
    def load(cls, folder: str | Path, model: HookedModel) -> "TunedLens":
        """Loads a lens from a folder onto the model's device.

        The folder is one written by `save`, by the ``tuned-lens`` package, or by a ``tuned_lens_train`` run.

        Raises:
            ArtifactError: a folder that does not exist, holds no lens or a damaged one.
            ModelSupportError: a lens of another model.
        """
        source = Path(folder)
        has_config = (source / _CONFIG).is_file()
        config = _read_config(source / _CONFIG) if has_config else {}
        if (source / _RESULT).is_file():
            lens = _load_result(source / _RESULT, model)
        elif config.get("format") == _FORMAT and (source / _WEIGHTS).is_file():
            if config["weights"] != file_checksum(source / _WEIGHTS):
                raise ArtifactError(f"{source / _WEIGHTS} is damaged: its checksum differs", fix=_TRAIN_AGAIN)
            tensors = load_file(source / _WEIGHTS, device=str(model.device))
            lens = cls(tensors["A"], tensors["b"], config["base"], config["recipe"], tensors.get("losses"))
        elif config.get("lens_type") == _KIND and (source / _PARAMS).is_file():
            return _load_package_lens(source, config, model)
        else:
            neither = f"neither {_WEIGHTS} nor {_PARAMS} with a {_CONFIG} that fits it"
            raise ArtifactError(
                f"{source} holds no lens: it has {neither if has_config else f'no {_CONFIG}'}",
                fix="Give a folder written by TunedLens.save, by a tuned_lens_train run or by the tuned-lens package",
            )
        lens.check(model)
        return lens

    def export(self, folder: str | Path, model: HookedModel) -> Path:
        """Writes the lens in the format of the ``tuned-lens`` package: ``config.json`` and ``params.pt``.

        Raises:
            ModelSupportError: a lens of another model, or of folded weights, whose streams that package does not use.
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
            "unembed_hash": _package_hash(model),
            "lens_type": _KIND,
        }
        _write(target / _CONFIG, config)
        return target


def _read_config(path: Path) -> dict[str, Any]:
    """The configuration of a lens; of our own format with its checksum compared."""
    try:
        text = path.read_text(encoding="utf-8")
        config = json.loads(text)
    except ValueError as error:
        raise ArtifactError(f"{path} is damaged: {error}", fix=_TRAIN_AGAIN) from error
    if isinstance(config, dict) and ("format" not in config and "weights" not in config):
        return config  # of the tuned-lens package, which has no checksums
    content = unsealed(text)
    if content is None or "weights" not in content:
        raise ArtifactError(f"{path} is damaged: its checksum differs", fix=_TRAIN_AGAIN)
    return content


def _load_result(path: Path, model: HookedModel) -> TunedLens:
    data = Result.load(path).data
    if "A" not in data or "base" not in data["A"].attrs:
        raise ArtifactError(
            f"{path} is the result of another method and holds no lens", fix="Give the folder of a tuned_lens_train run"
        )
    A, b, losses = (torch.from_numpy(data[name].values) for name in ("A", "b", "loss"))
    base, recipe = (json.loads(data["A"].attrs[name]) for name in ("base", "recipe"))
    return TunedLens(A.to(model.device), b.to(model.device), base, recipe, losses)


def model_identity(model: HookedModel) -> dict[str, Any]:
    """The properties that decide whether a lens fits a model."""
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
        model: the model, for its tokenizer.
        texts: the documents.
        length: tokens per row, including the leading end-of-text token.

    Raises:
        ArtifactError: fewer tokens than one row needs.
    """
    end = model.text.bos
    joined: list[int] = []
    for text in texts:
        joined += model.text.bare_ids(text) + ([] if end is None else [end])
    size = length - (end is not None)
    rows = [joined[first : first + size] for first in range(0, len(joined) - size + 1, size)]
    if not rows:
        raise ArtifactError(
            f"The texts have {len(joined)} tokens, fewer than one row of {length}", fix="Give more text"
        )
    return torch.tensor([row if end is None else [end, *row] for row in rows])


def _load_package_lens(source: Path, config: Mapping[str, Any], model: HookedModel) -> TunedLens:
    _check_raw(model, "Reading a lens of the tuned-lens package")
    state = torch.load(  # noqa: TID251 - the package's format
        source / _PARAMS, map_location=model.device, weights_only=True
    )
    a = model.architecture
    sizes = (config.get("num_hidden_layers"), config.get("d_model"))
    unembed_hash = config.get("unembed_hash")
    if sizes != (a.n_layers, a.d_model) or (unembed_hash and unembed_hash != _package_hash(model)):
        fits = sizes == (a.n_layers, a.d_model)
        raise ModelSupportError(
            f"The lens of {config.get('base_model_name_or_path')} does not fit {model.name}: "
            + ("it has another unembedding" if fits else f"it has {sizes[0]} layers of {sizes[1]} dimensions"),
            fix="Load the model that the lens was trained on",
        )
    A = torch.stack([state[f"{layer}.weight"].float() for layer in range(a.n_layers)])
    biases = [state.get(f"{layer}.bias") for layer in range(a.n_layers)]
    b = torch.stack([torch.zeros(a.d_model).to(A) if bias is None else bias.float() for bias in biases])
    return TunedLens(A, b, model_identity(model))


def _check_raw(model: HookedModel, action: str) -> None:
    if model.processing != "raw":
        raise ModelSupportError(
            f"{action} needs raw weights, but {model.name} has processing={model.processing!r}, "
            "which centres its residual streams",
            fix="Load the model with processing='raw'",
        )


def _package_hash(model: HookedModel) -> str:
    """The ``tuned-lens`` package's hash of an unembedding: the hash of its abbreviated print-out with one digit."""
    W_U, _ = model.backend.unembedding()
    return hashlib.sha256(np.array_str(W_U.T.detach().cpu().numpy(), precision=1).encode()).hexdigest()


def _write(path: Path, config: Mapping[str, Any]) -> None:
    write_atomic(path, json.dumps(config, indent=2, default=str) + "\n")
