"""Interventions swept over a model: patching, ablation, causal tracing."""
