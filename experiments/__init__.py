"""Floor 6: one short file per study or family of studies; nobody imports it."""
