"""Figures and tables, drawn from metrics files alone."""
