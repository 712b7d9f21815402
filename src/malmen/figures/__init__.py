"""Figures and tables, drawn from result files only."""

import os

# Before matplotlib is imported: files are drawn, so a notebook's or a desktop's backend, which may be missing here, is
# not wanted. What else is set around this process is undone by `style.theme`.
os.environ["MPLBACKEND"] = "agg"
