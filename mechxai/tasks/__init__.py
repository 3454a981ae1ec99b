"""Tasks: prompts with known answers or labels, drawn for one model's tokenizer or read from files.

Every task is a function ``(model, n, seed, **settings)`` that returns a `ContrastBatch`, a `ProbeDataset` or a
`ReasoningBatch`.
"""

from mechxai.tasks.generators import docstring as docstring
from mechxai.tasks.generators import eiffel as eiffel
from mechxai.tasks.generators import facts as facts
from mechxai.tasks.generators import greater_than as greater_than
from mechxai.tasks.generators import induction as induction
from mechxai.tasks.generators import ioi as ioi
from mechxai.tasks.generators import sva as sva
from mechxai.tasks.jsonl_files import from_jsonl as from_jsonl
from mechxai.tasks.labelled import fact_relation as fact_relation
from mechxai.tasks.labelled import pos_tags as pos_tags
from mechxai.tasks.labelled import sentence_source as sentence_source
from mechxai.tasks.labelled import subject_number as subject_number
from mechxai.tasks.labelled import syntactic_role as syntactic_role
from mechxai.tasks.labelled_files import labelled_jsonl as labelled_jsonl
from mechxai.tasks.prompts import prompts as prompts
from mechxai.tasks.reasoning import cot_arithmetic as cot_arithmetic
from mechxai.tasks.reasoning import cot_jsonl as cot_jsonl
from mechxai.tasks.reasoning import cot_logic as cot_logic
from mechxai.tasks.reviews import reviews as reviews

_CONTRAST = (ioi, greater_than, sva, docstring, facts, eiffel, induction, reviews, prompts, from_jsonl)
_LABELLED = (pos_tags, syntactic_role, subject_number, fact_relation, sentence_source, labelled_jsonl)
_REASONING = (cot_arithmetic, cot_logic, cot_jsonl)
TASKS = {task.__name__: task for task in (*_CONTRAST, *_LABELLED, *_REASONING)}
