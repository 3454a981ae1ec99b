"""The inputs of a result as small records: the model without its weights, and the task's prompts as text."""

import re
from collections.abc import Sequence

from torch import Tensor

from mechxai.core.batch import ContrastBatch
from mechxai.core.fingerprint import Fingerprints
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.prompts import Prompts
from mechxai.model.hooked_model import HookedModel
from mechxai.model.sequence.named_outputs import NamedOutputs
from mechxai.runs.folder import AnyModel

MAX_PROMPTS = 1000  # of a task, from the first
Rows = list[dict[str, object]]


def model_record(model: AnyModel) -> tuple[str, dict[str, object]]:
    """A model's name, and its weight hash, revision, architecture, dtype and processing; not the device it runs on."""
    info = {key: value for key, value in model.info().items() if key != "device"}
    return f"model-{_word(model.name)}", info


def task_record(model: AnyModel, prompts: Prompts) -> tuple[str, dict[str, object]]:
    """A name made from the prompts' fingerprint, and the prompts with their answers as text.

    The record holds the first `MAX_PROMPTS` prompts and says how many it leaves out.
    """
    fingerprint = Fingerprints()(prompts.identity)
    first = prompts.rows(slice(0, MAX_PROMPTS))
    content: dict[str, object] = {
        "fingerprint": fingerprint,
        "task": dict(prompts.info),
        "n": len(prompts),
        "left_out": len(prompts) - len(first),
        "prompts": _rows(model, first),
    }
    return f"task-{_word(str(prompts.info.get('name', 'given')))}-{fingerprint[:10]}", content


def _rows(model: AnyModel, prompts: Prompts) -> Rows:
    if isinstance(prompts, ContrastBatch):
        return _contrasts(model, prompts)
    if isinstance(prompts, ProbeDataset):
        return _labelled(model, prompts)
    return [{"problem": problem} for problem in prompts.problems]


def _contrasts(model: AnyModel, batch: ContrastBatch) -> Rows:
    columns = zip(batch.clean, batch.corrupted, batch.lengths.tolist(), batch.answers, batch.wrong, strict=True)
    return [
        {
            "clean": _text(model, clean[:length].tolist()),
            "corrupted": _text(model, corrupted[:length].tolist()),
            "answers": _alternatives(model, answers),
            "wrong": _alternatives(model, wrong),
        }
        for clean, corrupted, length, answers, wrong in columns
    ]


def _labelled(model: AnyModel, prompts: ProbeDataset) -> Rows:
    groups, splits = prompts.groups, prompts.splits or ("",) * len(prompts)
    columns = zip(prompts.tokens, prompts.lengths.tolist(), prompts.labels, groups, splits, strict=True)
    return [
        {
            "text": _text(model, tokens[:length].tolist()),
            "label": _label(labels[:length] if prompts.per_token else labels, prompts.names),
            "group": group,
            "split": split,
        }
        for tokens, length, labels, group, split in columns
    ]


def _label(labels: Tensor, names: Sequence[str]) -> object:
    if labels.ndim:
        return [_label(label, names) for label in labels]
    value = labels.item()
    if not names:
        return value
    return names[int(value)] if value >= 0 else None


def _alternatives(model: AnyModel, answers: Tensor) -> list[object]:
    """Each answer as text, or as the name of its output; -1 is padding."""
    rows = [[token for token in row if token >= 0] for row in answers.tolist()]
    if isinstance(model, NamedOutputs):
        return [model.outputs[row[0]] for row in rows if row]
    return [_text(model, row) for row in rows if row]


def _text(model: AnyModel, ids: list[int]) -> object:
    """The tokens as text; as ids where the model has no tokenizer."""
    codec = model.text if isinstance(model, (HookedModel, NamedOutputs)) else None
    return ids if codec is None or codec.tokenizer is None else codec.tokenizer.decode(ids)


def _word(name: str) -> str:
    return re.sub(r"[^\w.]+", "-", name).strip("-")
