"""Refuses methods that do not fit the prompts or the model."""

from mechxai.core.batch import ContrastBatch
from mechxai.core.errors import ConfigError
from mechxai.core.method import Method
from mechxai.core.prompts import Prompts
from mechxai.core.reasoning import ReasoningBatch
from mechxai.model.generation.generator import Generator
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.runs.folder import AnyModel


def prompts_for(label: str, method: Method, prompts: Prompts) -> Prompts:
    """The prompts of a task in the form that a method takes; of problems with chains of thought, their prompt pairs.

    Raises:
        ConfigError: the method takes another kind of prompts.
    """
    if isinstance(prompts, method.takes):
        return prompts
    if isinstance(prompts, ReasoningBatch) and prompts.pairs is not None and method.takes is ContrastBatch:
        return prompts.pairs
    task = prompts.info.get("name", "given")
    raise ConfigError(
        f"{label} takes a {method.takes.__name__}, but the task {task!r} gives a {type(prompts).__name__}",
        fix="Choose another task (mechxai tasks lists them)",
    )


def check_model(label: str, method: Method, model: AnyModel) -> None:
    """Refuses classifiers, encoders and endpoints for methods that look inside a language model.

    Raises:
        ConfigError: says which methods the model allows.
    """
    family = method.card.family
    if isinstance(model, NamedOutputs) and family != "attribution":
        raise ConfigError(
            f"{label} looks inside a language model, but {model.name} is a {model.architecture.family}",
            allowed="methods of the family attribution (mechxai methods lists them)",
        )
    if isinstance(model, Generator) and (family != "cot" or method.card.name == "chain_flow"):
        raise ConfigError(
            f"{label} looks inside a model, but {model.name} is an endpoint that only writes",
            allowed="chain-of-thought methods that read text (mechxai methods lists them)",
        )
