"""What a finger does on a page."""

from __future__ import annotations

from typing import Any

__all__ = ["drag_slider"]


def drag_slider(page: Any, slider: Any, share: float) -> None:
    """From the slider's left end to a share of its width, by touch."""
    track = slider.bounding_box()
    x, y, to = track["x"] + 22, track["y"] + track["height"] / 2, track["x"] + share * track["width"]
    finger = page.context.new_cdp_session(page)
    for kind, at in (("touchStart", x), *(("touchMove", x + (to - x) * k / 10) for k in range(1, 11))):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": at, "y": y}]})
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
