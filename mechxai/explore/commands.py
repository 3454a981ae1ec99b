"""What is shown, as commands and as Python: another machine shows the same numbers."""

import re
import shlex
from collections.abc import Sequence

from mechxai.explore.panel_context import PanelContext


def commands(scene: PanelContext) -> str:
    """Lines for the shell that compute what the panels show, and their beginning in Python."""
    view, given = scene.view, _load(scene)
    loading = [repr(given.pop("name")), *(f"{key}={value!r}" for key, value in given.items())]
    end = scene.reading.asked(scene.reading.end, view.answer, view.wrong)
    task = ["task=prompts", _texts("task.texts", [view.prompt])]
    last = [f"task.answers=[{end.answer}]", f"task.wrong=[{end.wrong}]"]
    both = [*task, _texts("task.counterfactuals", [view.corrupted]), *last] if view.corrupted else []
    over = "[layer,head]" if view.site == "z" else "[layer,pos]"
    lines = [
        "# the lens, and what heads write towards the answer at the last position",
        _line(scene, [*_lens(scene), *task, *last]),
        _line(scene, ["method=direct_logit_attribution", *task, *last]),
    ]
    if both:
        patch = ["method=activation_patching", f"method.site={view.site}", f"method.over={over}"]
        lines += [
            "# patching, and the circuit",
            _line(scene, [*patch, *both]),
            _line(scene, ["method=edge_attribution", "method.kind=eap_ig_inputs", *both]),
        ]
    lines += [
        "# this page",
        _page(scene),
        "",
        "# in Python",
        "import mechxai as mx",
        f"model = mx.load({', '.join(loading)})",
        f"batch = mx.tasks.prompts(model, texts=[{view.prompt!r}], answers=[{end.answer}], wrong=[{end.wrong}])",
    ]
    return "\n".join(lines)


def _line(scene: PanelContext, overrides: Sequence[str]) -> str:
    return " ".join(["mechxai run", *(shlex.quote(one) for one in (*_model(scene), *overrides))])


def _lens(scene: PanelContext) -> list[str]:
    folder = scene.room.lens_folders.get(scene.view.model)
    if scene.view.lens == "tuned" and folder is not None:
        return ["method=tuned_lens", f"method.lens={quoted(folder)}"]
    return ["method=logit_lens"]


def _page(scene: PanelContext) -> str:
    view, folder = scene.view, scene.room.lens_folders.get(scene.view.model)
    lens = [] if folder is None else [f"lens={folder}"]
    return " ".join(["mechxai explore", *map(shlex.quote, [f"model={view.model}", *lens, f"view={view.query()}"])])


def _load(scene: PanelContext) -> dict[str, object]:
    """What the model was loaded with."""
    return {"name": scene.view.model, **scene.room.loads.get(scene.view.model, {})}


def _model(scene: PanelContext) -> list[str]:
    """As the command line names the model: bundled ones have a config, others are loaded by name."""
    given = _load(scene)
    name = str(given.pop("name"))
    own = [f"model={name}"] if re.fullmatch(r"zoo/[\w-]+", name) else ["model=load", f"model.name={quoted(name)}"]
    return own + [f"model.{key}={value}" for key, value in given.items()]


def _texts(key: str, texts: Sequence[str]) -> str:
    return f"{key}=[{','.join(map(quoted, texts))}]"


def quoted(text: str) -> str:
    """A text as hydra reads it, whatever is in it: quotes and the backslashes before them escaped, no interpolation."""
    escaped = re.sub(r'(\\*)"', lambda found: 2 * found[1] + '\\"', text)
    escaped = re.sub(r"(\\+)$", lambda found: 2 * found[1], escaped)
    return f'"{escaped.replace("${", chr(92) + "${")}"'
