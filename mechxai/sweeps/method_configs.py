"""The configs of methods, derived from their fields.

``configs/method/*.yaml`` shows them to readers; ``python -m mechxai.sweeps.method_configs`` writes those files anew. A
method without a file is known to hydra all the same.
"""

import textwrap
from typing import Any

import yaml
from hydra.core.config_store import ConfigStore

from mechxai._resources import configs_dir
from mechxai.core.signature import Parameter
from mechxai.core.source import UNKNOWN
from mechxai.methods.catalog import MethodEntry, catalog

_SHARED = {"metric": ("logit_diff", "${metric.name}"), "seed": (0, "${seed}")}
"""Field -> its usual default, and the interpolation that stands in a config for it."""
_COLUMN = 28  # where comments begin
_WIDTH = 120
_LONG = 80


def method_config(entry: MethodEntry) -> dict[str, Any]:
    """The config of a method: its target, and every field with its default."""
    return {"_target_": entry.target} | {name: config_value(field) for name, field in entry.fields.items()}


def config_value(field: Parameter) -> Any:
    """A field's default as a config has it: metric and seed come from the run, tuples are lists."""
    usual, shared = _SHARED.get(field.name, (UNKNOWN, None))
    if field.default == usual:
        return shared
    return list(field.default) if isinstance(field.default, tuple) else field.default


def method_yaml(entry: MethodEntry) -> str:
    """The text of a method's config: a line per field, with its choices or the first sentence of its description."""
    lines = [f"# {line}" for line in textwrap.wrap(entry.question, _WIDTH - 2)]
    lines.append(f"_target_: {entry.target}")
    for name, field in entry.fields.items():
        lines += _lines(name, field)
    return "\n".join([*lines, ""])


def _lines(name: str, field: Parameter) -> list[str]:
    """A field as ``name: value  # comment``, or over several lines where the value is long."""
    value, comment = config_value(field), field_comment(field)
    flow = f"{name}: {_flow(value)}"
    if isinstance(value, dict) or len(flow) > _LONG:
        block = yaml.safe_dump({name: value}, default_flow_style=False, sort_keys=False).rstrip().splitlines()
        return [_commented(block[0], comment), *block[1:]]
    return [_commented(flow, comment)]


def _commented(text: str, comment: str) -> str:
    start = f"{text.ljust(_COLUMN - 1)} # "
    return start + textwrap.shorten(comment, _WIDTH - len(start), placeholder=" ...") if comment else text


def field_comment(field: Parameter) -> str:
    """The choices of a field, else the first sentence of its description."""
    choices = field.annotation.values
    if choices and choices != ("true", "false"):
        return " | ".join(map(str, choices))
    return field.doc.replace("``", "").replace("`", "").partition(". ")[0].rstrip(".")


def store_missing_configs() -> None:
    """Tells hydra of the methods that have no file in ``configs/method``."""
    folder = configs_dir() / "method"
    for entry in catalog().values():
        if not (folder / f"{entry.name}.yaml").is_file():
            ConfigStore.instance().store(name=entry.name, group="method", node=method_config(entry), provider="mechxai")


def _flow(value: Any) -> str:
    """A value on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).strip()
    return text.removesuffix("...").strip()


if __name__ == "__main__":
    for method in catalog().values():
        path = configs_dir() / "method" / f"{method.name}.yaml"
        path.write_text(method_yaml(method), encoding="utf-8")
