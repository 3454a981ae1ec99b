"""Which inputs mattered: scores of tokens, words or spans of a prompt, and whether they are true."""
