"""What is shown, as commands and as Python: another machine shows the same numbers."""

import re
import shlex
from collections.abc import Sequence

from mechxai.explore.scene import Scene


def commands(scene: Scene) -> str:
    """Lines for the shell that compute what the panels show, and their beginning in Python."""
    view, asked = scene.view, scene.asked
    end = scene.reading.asked(scene.reading.n_pos - 1, view.answer, view.wrong)
    task = ["task=prompts", _texts("task.texts", [view.prompt])]
    last = [f"task.answers=[{end.answer}]", f"task.wrong=[{end.wrong}]"]
    both = [*task, _texts("task.counterfactuals", [view.corrupted]), *last] if view.corrupted else []
    over = "[layer,head]" if view.site == "z" else "[layer,pos]"
    lines = [
        "# the lens, and what heads write towards the answer at the last position",
        _line(view.model, ["method=logit_lens", *task, *last]),
        _line(view.model, ["method=direct_logit_attribution", *task, *last]),
    ]
    if both:
        patch = ["method=activation_patching", f"method.site={view.site}", f"method.over={over}"]
        lines += [
            "# patching, and the circuit",
            _line(view.model, [*patch, *both]),
            _line(view.model, ["method=edge_attribution", "method.kind=eap_ig_inputs", *both]),
        ]
    lines += [
        "# this page",
        " ".join(["mechxai explore", shlex.quote(f"model={view.model}"), shlex.quote(f"view={view.query()}")]),
        "",
        "# in Python",
        "import mechxai as mx",
        f"model = mx.load({view.model!r})",
        f"batch = mx.tasks.prompts(model, texts=[{view.prompt!r}], answers=[{asked.answer}], wrong=[{asked.wrong}])",
    ]
    return "\n".join(lines)


def _line(model: str, overrides: Sequence[str]) -> str:
    return " ".join(["mechxai run", *(shlex.quote(one) for one in (*_model(model), *overrides))])


def _model(name: str) -> list[str]:
    """As the command line names a model: bundled ones have a config, others are loaded by name."""
    return [f"model={name}"] if re.fullmatch(r"zoo/[\w-]+", name) else ["model=load", f"model.name={quoted(name)}"]


def _texts(key: str, texts: Sequence[str]) -> str:
    return f"{key}=[{','.join(map(quoted, texts))}]"


def quoted(text: str) -> str:
    """A text as hydra reads it, whatever is in it: quotes and the backslashes before them escaped, no interpolation."""
    escaped = re.sub(r'(\\*)"', lambda found: 2 * found[1] + '\\"', text)
    escaped = re.sub(r"(\\+)$", lambda found: 2 * found[1], escaped)
    return f'"{escaped.replace("${", chr(92) + "${")}"'
