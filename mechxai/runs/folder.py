"""Where a run's results lie: a folder named by what decides its numbers, so that the same question finds it again."""

import hashlib
import json
import re
from pathlib import Path

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.method import Method
from mechxai.core.prompts import Prompts
from mechxai.core.reasoning import ReasoningBatch
from mechxai.core.versions import versions
from mechxai.model.generation.generator import Generator
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs

AnyModel = HookedModel | NamedOutputs | Generator
_DECIDE = ("mechxai", "torch", "transformer-lens", "transformers")


def run_folder(root: Path, model: AnyModel, prompts: Prompts, method: Method, *, seed: int) -> Path:  # noqa: PLR0917
    """The folder of one method's run, named by what it is and a hash of what decides its numbers."""
    run = run_id(model, prompts, method, seed=seed)
    settings = method.settings()
    words = [str(settings["name"]), _listed(settings.get("site"))]
    label = "-".join(re.sub(r"[^\w.]+", "-", word) for word in words if word)
    name = re.sub(r"[^\w.]+", "-", model.name).strip("-")
    return root / name / f"{label}-{run[:10]}"


def run_id(model: AnyModel, prompts: Prompts, method: Method, *, seed: int) -> str:
    """A hash of method, prompts and answers, model and weights, seed, and the versions that matter."""
    info = model.info()
    parts: dict[str, object] = {name: info[name] for name in ("weight_hash", "backend", "processing", "dtype")}
    parts |= {"method": method.settings(), "seed": seed, "versions": {name: versions()[name] for name in _DECIDE}}
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16)
    digest.update(Fingerprints()(prompts.identity).encode())
    return digest.hexdigest()


def is_finished(folder: Path) -> bool:
    """Whether a run's folder holds a finished run; the manifest is written last."""
    manifest = folder / "manifest.json"
    return manifest.is_file() and (folder / "result.nc").is_file()


def prompts_for(label: str, method: Method, prompts: Prompts) -> Prompts:
    """The prompts that a method is asked about: the task's, or of problems with chains of thought their pairs.

    Raises:
        ConfigError: the method takes another kind; says which tasks would do.
    """
    if isinstance(prompts, method.takes):
        return prompts
    if isinstance(prompts, ReasoningBatch) and prompts.pairs is not None and method.takes is ContrastBatch:
        return prompts.pairs
    raise ConfigError(
        f"{label} was asked about the task {prompts.info.get('name', 'given')!r}",
        got=f"a {type(prompts).__name__}",
        allowed=f"tasks that give a {method.takes.__name__} (mechxai tasks lists them)",
    )


def check_model(label: str, method: Method, model: AnyModel) -> None:
    """Refuses classifiers, encoders and endpoints for methods that look inside a language model.

    Raises:
        ConfigError: says which methods would do.
    """
    family = method.card.family
    if isinstance(model, NamedOutputs) and family != "attribution":
        raise ConfigError(
            f"{label} was asked of {model.name}",
            got=f"a {model.architecture.family}, which is explained by its outputs",
            allowed="methods of attribution (mechxai methods lists them)",
        )
    if isinstance(model, Generator) and (family != "cot" or method.card.name == "chain_flow"):
        raise ConfigError(
            f"{label} was asked of {model.name}",
            got="an endpoint that writes, which cannot be opened",
            allowed="methods of chains of thought that read what is written (mechxai methods lists them)",
        )


def _listed(site: object) -> str:
    return "-".join(map(str, site)) if isinstance(site, (list, tuple)) else str(site or "")
