"""Editing a user's own facts into a user's own model."""
