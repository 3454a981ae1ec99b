"""A model's modules in evaluation mode, uncompiled, for the time of a pass."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from mechxai.core.errors import ModelSupportError
from mechxai.model.backends.base import Backend, modules


def check_not_compiled(every: Iterable[Any]) -> None:
    """Refuses modules inside a model that ``torch.compile`` has replaced: a compiled module ignores new hooks.

    Raises:
        ModelSupportError: names the kind of the module.
    """
    for module in every:
        forward = vars(module).get("forward")
        inside = module if type(module).__name__ == "OptimizedModule" else forward
        if hasattr(inside, "_orig_mod" if inside is module else "_torchdynamo_orig_callable"):
            original = getattr(module, "_orig_mod", module)
            raise ModelSupportError(
                f"A {type(original).__name__} of this model is compiled with torch.compile, and would ignore hooks",
                fix="Put the original module back, or pass a model that is not compiled",
            )


@contextmanager
def evaluating(backend: Backend) -> Iterator[None]:
    """Puts the model into evaluation mode and silences library warnings; restores both afterwards.

    A module compiled in place (``module.compile()``) runs as written meanwhile: its compiled form ignores new hooks.
    Attention patterns that a bridge keeps of a pass, with all that led to them, are dropped again.
    """
    every = modules(backend)
    check_not_compiled(every)
    training = [module for module in every if module.training]
    compiled = [(module, module._compiled_call_impl) for module in every if module._compiled_call_impl is not None]
    patterns = [(module, module._pattern) for module in every if "_pattern" in vars(module)]
    try:
        for module in training:
            module.training = False
        for module, _ in compiled:
            module._compiled_call_impl = None
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            warnings.filterwarnings("ignore", category=FutureWarning)
            yield
    finally:
        for module in training:
            module.training = True
        for module, compiled_call in compiled:
            module._compiled_call_impl = compiled_call
        for module, pattern in patterns:
            module._pattern = pattern
