"""Panels of the explorer, one per file, each drawn from a `PanelContext`; `mechxai.explore.panel` lists them."""
