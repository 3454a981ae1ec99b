"""The style sheet of the report."""

CSS = """
:root { --ink: #1f2933; --quiet: #616e7c; --line: #d9dee4; --paper: #ffffff; --ground: #f5f7fa; --accent: #2166ac; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 Inter, "Helvetica Neue", Helvetica, Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
header, section, footer { background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 1.5rem 1.75rem; margin-bottom: 1.5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 0 0 .5rem; }
h3 { font-size: 1rem; margin: 1.5rem 0 .5rem; }
p { max-width: 46rem; margin: .4rem 0 .8rem; }
p.quiet { color: var(--quiet); }
a { color: var(--accent); }
.figure { overflow-x: auto; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; }
th, td { text-align: left; padding: .3rem 1.1rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--quiet); font-weight: 600; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.site { font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: .85rem; }
dl { display: flex; flex-wrap: wrap; gap: .75rem 2.25rem; margin: .75rem 0; }
dt { color: var(--quiet); font-size: .82rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; }
.warning { border-left: 4px solid #e69f00; background: #fff7e6; padding: .6rem 1rem; margin: .75rem 0;
  max-width: none; }
ol { margin: 1rem 0 0; padding-left: 1.4rem; }
.warning strong { margin-right: .4rem; }
details { margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; }
pre { background: var(--ground); border: 1px solid var(--line); border-radius: 6px; padding: .75rem 1rem;
  overflow-x: auto; font-size: .8rem; line-height: 1.45; }
"""
