"""Black boxes that return tensors, arrays, frames, dicts or outputs of other libraries; and batches made before."""

import pickle
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

import mechxai as mx
from mechxai.core.errors import ArtifactError, ShapeError
from mechxai.model.sequence import word_pieces

OUTPUTS = ["ham", "spam"]
TEXTS = ["good words", "buy now"]


def numbers(texts):
    """Scores that bfloat16 holds exactly."""
    return np.array([[float(len(text.split())), -float("buy" in text)] for text in texts])


def tensor(texts):
    return torch.tensor(numbers(texts))


FORMS = {
    "array": numbers,
    "lists": lambda texts: numbers(texts).tolist(),
    "float32": lambda texts: numbers(texts).astype(np.float32),
    "integers": lambda texts: numbers(texts).astype(int),
    "tensor": tensor,
    "bfloat16": lambda texts: tensor(texts).bfloat16(),
    "float16": lambda texts: tensor(texts).half(),
    "gradient": lambda texts: tensor(texts).requires_grad_() * 1,
    "parameter": lambda texts: torch.nn.Parameter(tensor(texts).bfloat16()),
    "rows": lambda texts: list(tensor(texts).requires_grad_().bfloat16()),
    "numbers": lambda texts: [list(row) for row in tensor(texts).requires_grad_()],
    "Hugging Face output": lambda texts: SimpleNamespace(logits=tensor(texts).requires_grad_()),
    "dict with logits": lambda texts: {"logits": tensor(texts), "loss": None},
    "dict of columns": lambda texts: {"spam": numbers(texts)[:, 1], "ham": numbers(texts)[:, 0].tolist()},
    "dict of tensors": lambda texts: {"spam": tensor(texts)[:, 1].bfloat16(), "ham": tensor(texts)[:, 0]},
    "dict per text": lambda texts: [{"spam": spam, "ham": ham} for ham, spam in numbers(texts)],
    "frame": lambda texts: pd.DataFrame(numbers(texts), columns=OUTPUTS)[["spam", "ham"]],
    "frame without names": lambda texts: pd.DataFrame(numbers(texts)),
}


@pytest.mark.parametrize("form", FORMS)
def test_scores_are_taken_in_any_form(form):
    model = mx.black_box(FORMS[form], OUTPUTS)
    for made in (model.outputs_of(TEXTS), model(TEXTS)[:, 0], model(np.array(TEXTS))[:, 0]):
        assert made.dtype == torch.float64
        assert np.array_equal(made.numpy(), numbers(TEXTS))


BAD = {
    "none": None,
    "number": 1.0,
    "text": "ham",
    "texts": [["a", "b"], ["c", "d"]],
    "one per text": [1.0, 2.0],
    "ragged": [[1.0, 2.0], [3.0]],
    "nan": [[1.0, np.nan], [0.0, 0.0]],
    "missing": [[1.0, None], [0.0, 0.0]],
    "complex": np.zeros((2, 2), complex),
    "other names": {"ham": [1, 2], "eggs": [3, 4]},
    "other names per text": [{"ham": 1.0}, {"ham": 2.0}],
    "pipeline": [{"label": "ham", "score": 0.9}, {"label": "spam", "score": 0.8}],
    "pipeline with all": [[{"label": "ham", "score": 0.9}, {"label": "spam", "score": 0.1}]] * 2,
    "dict of ragged columns": {"ham": [1, 2], "spam": [3]},
    "three axes": np.zeros((2, 1, 2)),
}


@pytest.mark.parametrize("bad", BAD)
def test_other_scores_are_refused_in_a_sentence(bad):
    model = mx.black_box(lambda texts: BAD[bad], OUTPUTS)
    with pytest.raises(ShapeError, match=r"black box.*Allowed: finite numbers of shape \(2, 2\)"):
        model.outputs_of(TEXTS)


def test_a_black_box_made_again_reads_a_batch_made_before():
    first = mx.black_box(numbers, OUTPUTS)
    batch = first.contrast(["buy it now"], ["sell it now"], ["spam"], ["ham"])
    again = mx.black_box(numbers, OUTPUTS)
    method = mx.Occlusion()
    assert np.array_equal(method(again, batch).data["value"], method(first, batch).data["value"])


def test_words_of_another_process_are_refused_in_a_sentence(monkeypatch):
    batch = mx.black_box(numbers, OUTPUTS).contrast(["buy it now"], ["sell it now"], ["spam"], ["ham"])
    monkeypatch.setattr(word_pieces, "_texts", dict(word_pieces._SPECIAL))
    with pytest.raises(ArtifactError, match="has not read"):
        mx.Occlusion()(mx.black_box(numbers, OUTPUTS), pickle.loads(pickle.dumps(batch)))
