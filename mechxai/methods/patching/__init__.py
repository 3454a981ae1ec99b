"""Patching methods: activation patching, ablation, causal tracing."""
