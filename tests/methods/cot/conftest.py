import pytest

import mechxai as mx
from mechxai.core.reasoning import Mistake, ReasoningBatch
from tests.methods.cot.scripted import problem


@pytest.fixture
def batch():
    return ReasoningBatch(
        (
            problem(
                "1 and 2 and 3?",
                (" 1 plus 2 is 3.", " 3 plus 3 is 6."),
                (Mistake(" 1 plus 2 is 4.", " 7"), Mistake(" 3 plus 3 is 5.", " 5")),
            ),
            problem(
                "9 less 1 less 1 less 1 less 1?",
                (" 9 minus 1 is 8.", " 8 minus 1 is 7.", " 7 minus 1 is 6.", " 6 minus 1 is 5."),
                (
                    Mistake(" 9 minus 1 is 7.", " 4"),
                    Mistake(" 8 minus 1 is 6.", " 4"),
                    Mistake(" 7 minus 1 is 5.", " 4"),
                    Mistake(" 6 minus 1 is 4.", " 4"),
                ),
            ),
        )
    )


@pytest.fixture(scope="module", params=["cot", "cot-decorative"])
def known(request):
    model = mx.load(f"zoo/{request.param}", device="cpu")
    return model, mx.tasks.cot_arithmetic(model, n=8, split="held_out"), request.param == "cot"
