"""Floor 1½: the causal sweep engine (plan, pack, run), activation store, memory budget."""
