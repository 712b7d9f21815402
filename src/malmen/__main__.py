"""``python -m malmen`` is the ``malmen`` command."""

from malmen.cli import app

app(prog_name="malmen")
