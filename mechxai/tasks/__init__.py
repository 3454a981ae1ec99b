"""Prompts with known answers; every task is ``(model, n, seed, **its own) -> ContrastBatch``."""

from mechxai.tasks.files import from_jsonl as from_jsonl
from mechxai.tasks.generators import docstring as docstring
from mechxai.tasks.generators import eiffel as eiffel
from mechxai.tasks.generators import facts as facts
from mechxai.tasks.generators import greater_than as greater_than
from mechxai.tasks.generators import induction as induction
from mechxai.tasks.generators import ioi as ioi
from mechxai.tasks.generators import sva as sva

TASKS = {task.__name__: task for task in (ioi, greater_than, sva, docstring, facts, eiffel, induction, from_jsonl)}
