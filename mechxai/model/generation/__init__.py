"""Models that write text: local ones and OpenAI-compatible endpoints, with their answers cached on disk."""
