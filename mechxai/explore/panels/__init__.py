"""Panels of the explorer, one per file, each drawn from a scene alone; `panel.PANELS` lists them."""
