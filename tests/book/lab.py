"""A real JupyterLab for the tests of a browser."""

from __future__ import annotations

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR",
           "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")


class Lab:
    """A JupyterLab that runs: its address and its token."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address, token

    def api(self, what: str) -> Any:
        try:
            with urllib.request.urlopen(f"{self.address}api/{what}?token={self.token}", timeout=5) as reply:
                return json.load(reply)
        except OSError:
            return None

    def open(self, page: Any, notebook: str) -> None:
        """Open a notebook, and wait for its kernel: to run a cell before it is up would open a dialog instead."""
        page.goto(f"{self.address}lab/tree/{notebook}?token={self.token}")
        until(self._kernel_is_idle, 90, "the kernel did not start")

    def _kernel_is_idle(self) -> bool:
        sessions = self.api("sessions") or []
        return any(s["kernel"]["execution_state"] == "idle" and s["kernel"]["connections"] > 0 for s in sessions)


@contextmanager
def jupyterlab(folder: Path, *started_by: str) -> Iterator[Lab]:
    """A JupyterLab over a folder, which keeps everything it writes in there. started_by: instead of Jupyter's own
    command, a script of the project, which chooses the folder itself."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    lab = Lab(f"http://127.0.0.1:{port}/", secrets.token_hex(16))
    environment = {**os.environ, **{name: str(folder / "jupyter" / name) for name in FOLDERS}}
    with (folder / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, *(started_by or ("-m", "jupyterlab", f"--ServerApp.root_dir={folder}")), "--no-browser",
             "--ip=127.0.0.1", f"--port={port}", "--allow-root", f"--IdentityProvider.token={lab.token}",
             "--LabApp.news_url=", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"],
            env=environment, cwd=folder, stdout=log, stderr=subprocess.STDOUT,
        )
        try:
            until(lambda: lab.api("status") is not None, 60, "JupyterLab did not start")
            yield lab
        finally:
            server.terminate()
            server.wait(20)


def until(true: Any, seconds: float, otherwise: str) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            pytest.fail(otherwise)
        time.sleep(0.3)
