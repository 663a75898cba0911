"""``python -m prockd`` is the command ``prockd``."""

from prockd.cli import app

if __name__ == "__main__":
    app(prog_name="prockd")
