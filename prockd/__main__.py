"""``python -m prockd`` is the command ``prockd``."""

from prockd.cli import app

app(prog_name="prockd")
