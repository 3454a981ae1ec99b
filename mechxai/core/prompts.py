"""What a method may be asked about."""

from mechxai.core.batch import ContrastBatch
from mechxai.core.probe_dataset import ProbeDataset
from mechxai.core.reasoning import ReasoningBatch

TokenPrompts = ContrastBatch | ProbeDataset  # tokens, position by position
Prompts = TokenPrompts | ReasoningBatch
