"""Where a run's results lie: a folder named by what decides its numbers, so that the same question finds it again."""

import hashlib
import json
import re
from pathlib import Path

from mechxai.core.errors import ConfigError
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.method import Method
from mechxai.core.probe_dataset import Prompts
from mechxai.core.provenance import versions
from mechxai.model.hooked_model import HookedModel
from mechxai.model.named_outputs import NamedOutputs

_DECIDE = ("mechxai", "torch", "transformer-lens", "transformers")


def run_folder(root: Path, model: HookedModel | NamedOutputs, prompts: Prompts, method: Method, *, seed: int) -> Path:  # noqa: PLR0917
    """The folder of one method's run, named by what it is and a hash of what decides its numbers."""
    run = run_id(model, prompts, method, seed=seed)
    settings = method.settings()
    words = [str(settings["name"]), _listed(settings.get("site"))]
    label = "-".join(re.sub(r"[^\w.]+", "-", word) for word in words if word)
    name = re.sub(r"[^\w.]+", "-", model.name).strip("-")
    return root / name / f"{label}-{run[:10]}"


def run_id(model: HookedModel | NamedOutputs, prompts: Prompts, method: Method, *, seed: int) -> str:
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


def check_prompts(label: str, method: Method, prompts: Prompts) -> None:
    """Refuses prompts of another kind than a method takes.

    Raises:
        ConfigError: says which tasks would do.
    """
    if not isinstance(prompts, method.takes):
        raise ConfigError(
            f"{label} was asked about the task {prompts.info.get('name', 'given')!r}",
            got=f"a {type(prompts).__name__}",
            allowed=f"tasks that give a {method.takes.__name__} (mechxai tasks lists them)",
        )


def check_model(label: str, method: Method, model: HookedModel | NamedOutputs) -> None:
    """Refuses a classifier or an encoder for methods that look inside a language model.

    Raises:
        ConfigError: says which methods would do.
    """
    if isinstance(model, NamedOutputs) and method.card.family != "attribution":
        raise ConfigError(
            f"{label} was asked of {model.name}",
            got=f"a {model.architecture.family}, which is explained by its outputs",
            allowed="methods of attribution (mechxai methods lists them)",
        )


def _listed(site: object) -> str:
    return "-".join(map(str, site)) if isinstance(site, (list, tuple)) else str(site or "")
