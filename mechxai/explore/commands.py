"""Shell commands and Python lines that reproduce what the explorer shows."""

import re
import shlex
from collections.abc import Sequence

from mechxai.explore.panel_context import PanelContext


def commands(context: PanelContext) -> str:
    """Shell commands that compute the numbers of the panels, and the first lines of the same in Python."""
    view, analysis, load = context.view, context.analysis, _load_arguments(context)
    load_arguments = [repr(load.pop("name")), *(f"{key}={value!r}" for key, value in load.items())]
    question = analysis.question(analysis.answer_pos, view.answer, view.wrong)
    task = ["task=prompts", _texts("task.texts", [view.prompt])]
    answers = [f"task.answers=[{question.answer}]", f"task.wrong=[{question.wrong}]"]
    lines = [
        "# the lens, and what heads write towards the answer at the last position",
        _run(context, [*_lens(context), *task, *answers]),
        _run(context, ["method=direct_logit_attribution", *task, *answers]),
    ]
    if view.corrupted:
        over = "[layer,head]" if view.site == "z" else "[layer,pos]"
        pair = [*task, _texts("task.counterfactuals", [view.corrupted]), *answers]
        patching = ["method=activation_patching", f"method.site={view.site}", f"method.over={over}"]
        lines += [
            "# patching, and the circuit",
            _run(context, [*patching, *pair]),
            _run(context, ["method=edge_attribution", "method.kind=eap_ig_inputs", *pair]),
        ]
    lines += [
        "# this page",
        _explore(context),
        "",
        "# in Python",
        "import mechxai as mx",
        f"model = mx.load({', '.join(load_arguments)})",
        f"batch = mx.tasks.prompts(model, texts=[{view.prompt!r}], answers=[{question.answer}], "
        f"wrong=[{question.wrong}])",
    ]
    return "\n".join(lines)


def _run(context: PanelContext, overrides: Sequence[str]) -> str:
    return " ".join(["mechxai run", *(shlex.quote(override) for override in (*_model(context), *overrides))])


def _lens(context: PanelContext) -> list[str]:
    folder = context.state.lens_folders.get(context.view.model)
    if context.view.lens == "tuned" and folder is not None:
        return ["method=tuned_lens", f"method.lens={quoted(folder)}"]
    return ["method=logit_lens"]


def _explore(context: PanelContext) -> str:
    view, folder = context.view, context.state.lens_folders.get(context.view.model)
    lens = [] if folder is None else [f"lens={folder}"]
    return " ".join(["mechxai explore", *map(shlex.quote, [f"model={view.model}", *lens, f"view={view.query()}"])])


def _load_arguments(context: PanelContext) -> dict[str, object]:
    """The arguments of `mechxai.load` for the view's model."""
    return {"name": context.view.model, **context.state.loads.get(context.view.model, {})}


def _model(context: PanelContext) -> list[str]:
    """The model as overrides of ``mechxai run``: bundled models have a config, others are loaded by name."""
    load = _load_arguments(context)
    name = str(load.pop("name"))
    overrides = [f"model={name}"] if re.fullmatch(r"zoo/[\w-]+", name) else ["model=load", f"model.name={quoted(name)}"]
    return overrides + [f"model.{key}={value}" for key, value in load.items()]


def _texts(key: str, texts: Sequence[str]) -> str:
    return f"{key}=[{','.join(map(quoted, texts))}]"


def quoted(text: str) -> str:
    """Any text quoted for hydra: quotes and the backslashes before them escaped, and no interpolation."""
    escaped = re.sub(r'(\\*)"', lambda match: 2 * match[1] + '\\"', text)
    escaped = re.sub(r"(\\+)$", lambda match: 2 * match[1], escaped)
    return f'"{escaped.replace("${", chr(92) + "${")}"'
