"""Studies and training scripts, one file each; no package module imports them."""
