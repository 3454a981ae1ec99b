"""Floor 2: where a run's config, numbers and figures are recorded besides its folder; the only importer of wandb."""
