"""Open JupyterLab with a chapter and its exercise side by side: `python book/lab.py [OPTION]...`.

Options are JupyterLab's own. How the windows were left is kept in `_build/lab` and comes back the next time; nothing is
written into the user's own settings.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from jupyterlab_server.workspaces_handler import WorkspacesManager

ROOT = Path(__file__).resolve().parent.parent
NAME = "course"
CHAPTER = "book/01_fgsm.ipynb"
EXERCISE = "exercises/fgsm_first_steps/fgsm_first_steps.ipynb"


def workspace(chapter: str, exercise: str) -> dict[str, Any]:
    """JupyterLab's description of two notebooks side by side, with the list of files at the left."""
    tabs = [f"notebook:{path}" for path in (chapter, exercise)]
    areas = [{"type": "tab-area", "currentIndex": 0, "widgets": [tab]} for tab in tabs]
    dock = {"type": "split-area", "orientation": "horizontal", "sizes": [0.5, 0.5], "children": areas}
    layout = {
        "main": {"dock": dock, "current": tabs[1]},
        "left": {"collapsed": False, "current": "filebrowser", "widgets": ["filebrowser"], "visible": True},
        "right": {"collapsed": True, "widgets": []},
        "relativeSizes": [0.15, 0.85, 0],
    }
    data: dict[str, Any] = {"layout-restorer:data": layout, "file-browser-filebrowser:cwd": {"path": "exercises"}}
    for tab, path in zip(tabs, (chapter, exercise), strict=True):
        data[tab] = {"data": {"path": path, "factory": "Notebook"}}
    return {"data": data, "metadata": {"id": NAME}}


def prepare(folder: Path) -> None:
    """Write the workspace, unless the learner has one already."""
    manager = WorkspacesManager(str(folder))
    if not manager.load(NAME)["data"]:
        manager.save(NAME, json.dumps(workspace(CHAPTER, EXERCISE)))


def main() -> None:
    folder = ROOT / "_build" / "lab"
    prepare(folder)
    os.environ["JUPYTERLAB_WORKSPACES_DIR"] = str(folder)
    os.chdir(ROOT)
    options = [f"--LabApp.default_url=/lab/workspaces/{NAME}", *sys.argv[1:]]
    os.execv(sys.executable, [sys.executable, "-m", "jupyterlab", *options])


if __name__ == "__main__":
    main()
