"""A JupyterLab of one's own with notebooks in it, which also serves Notebook 7; nothing of the user's is read."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CELLS = ".jp-Notebook .jp-Cell"
IDLE = "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"


@contextmanager
def serve(folder: Path, notebooks: Mapping[str, Sequence[str]], *, path: Sequence[Path]) -> Iterator[str]:
    """Its address while it runs in ``folder``, with a notebook of these cells each; kernels import from ``path``."""
    kernel = {"name": "python3", "display_name": "Python 3"}
    cell = {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None}
    for name, sources in notebooks.items():
        cells = [cell | {"id": f"c{i}", "source": source} for i, source in enumerate(sources)]
        notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {name: str(folder / name) for name in
           ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "PROCKD_CACHE")}  # fmt: skip
    flags = [f"--port={port}", "--no-browser", "--allow-root", "--ServerApp.token=", "--ServerApp.password=",
             "--LabApp.expose_app_in_browser=True", "--JupyterNotebookApp.expose_app_in_browser=True",
             "--LabApp.extension_manager=readonly"]  # fmt: skip
    quiet = folder / "JUPYTER_CONFIG_DIR/lab/user-settings/@jupyterlab/apputils-extension"
    quiet.mkdir(parents=True)
    (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    found = os.pathsep.join([*map(str, path), *filter(None, [os.environ.get("PYTHONPATH")])])
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyter", "lab", *flags],
            cwd=folder, env={**os.environ, **own, "PYTHONPATH": found}, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/api", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None, (folder / "log").read_text()
                time.sleep(0.25)
        yield address
    finally:
        server.terminate()
        server.wait(20)


def run_cell(page: Any, number: int) -> None:
    """Run a cell of the notebook that is open."""
    page.evaluate(
        """async number => { const app = window.jupyterapp;
        app.shell.currentWidget.content.activeCellIndex = number;
        await app.commands.execute('notebook:run-cell'); }""",
        number,
    )
