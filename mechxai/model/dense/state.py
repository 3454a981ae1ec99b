"""The state of a model on which its dense blocks depend: weights, modules, forward functions and settings."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from mechxai.core.site_table import SITES
from mechxai.model.backends.base import Backend, modules

_FLAGS = {row.flag for row in SITES.values() if row.flag}  # set for the time of a pass
_PASSING = {"training", "call_super_init", "dump_patches", *_FLAGS}
_SETTING = (bool, int, float, str)


def model_state(backend: Backend) -> list[object]:
    """Everything whose change may change what the model computes; equal lists mean an unchanged model.

    Holds the address and version of every parameter and buffer, every module, functions set on modules (a replaced
    ``forward`` or ``act_fn``), and plain settings of modules and configurations.
    """
    state: list[object] = []
    for module in modules(backend):
        if type(module).__name__ == "HookPoint":
            continue
        state.append(module)
        for tensors in (module._parameters, module._buffers):
            for tensor in tensors.values():
                if tensor is not None:
                    state += _tensor(tensor)
        state += _settings(vars(module))
    for config in (backend.inner.cfg, getattr(getattr(backend.inner, "original_model", None), "config", None)):
        if config is not None:
            state += [f"{name}={value!r}" for name, value in vars(config).items() if _is_setting(name)]
    return state


def _tensor(tensor: Tensor) -> tuple[object, ...]:
    try:
        return tensor.data_ptr(), tensor._version
    except (RuntimeError, NotImplementedError):  # quantised or absent storage
        return (tensor,)


def _settings(attributes: Mapping[str, Any]) -> Iterator[object]:
    """The plain values and functions among a module's attributes.

    Yields:
        One value after the other.
    """
    for name, value in attributes.items():
        plain = isinstance(value, _SETTING) or (callable(value) and not isinstance(value, Tensor))
        if plain and _is_setting(name):
            yield value


def _is_setting(name: str) -> bool:
    return not name.startswith("_") and name not in _PASSING
