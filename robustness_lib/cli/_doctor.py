"""robustness doctor: is everything there that the book needs?"""

from __future__ import annotations

import typer

from robustness_lib.doctor import main

__all__ = ["doctor_command"]


def doctor_command() -> None:
    """Look at the installation: versions, the device, data and weights. (`robustness check` looks at a model.)

    Exit codes: 0 everything needed is there; 1 something is not, and below it stands what to do.
    """
    raise typer.Exit(main())
