"""The kinds of prompts that methods take."""

from mechxai.core.batch import ContrastBatch
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.reasoning import ReasoningBatch

TokenPrompts = ContrastBatch | ProbeDataset
Prompts = TokenPrompts | ReasoningBatch
