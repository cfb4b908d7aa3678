"""The check of an installation has moved: `robustness doctor`, or `python -m robustness_lib.doctor`.

This name stays so that old commands go on working. `robustness check` looks at a model.
"""

from __future__ import annotations

import sys

from robustness_lib.doctor import main
from robustness_lib.streams import lasting_streams

__all__ = ["main"]

if __name__ == "__main__":
    print("note: this is called `robustness doctor` now (python -m robustness_lib.doctor)", file=sys.stderr)
    with lasting_streams():
        sys.exit(main())
