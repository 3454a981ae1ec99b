"""Experiment trackers: record a run's config, numbers and figures outside its folder; the only importer of wandb."""
