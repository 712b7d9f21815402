"""Figures and tables, drawn from files of results alone."""
