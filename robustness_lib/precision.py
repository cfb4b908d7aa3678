"""Full float32, for answers that a verdict rests on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

__all__ = ["full_precision"]

_BACKENDS: Any = torch.backends  # its stubs do not know what it makes at import
_OPERATIONS = (_BACKENDS.cuda.matmul, _BACKENDS.cudnn.conv, _BACKENDS.cudnn.rnn,
               _BACKENDS.mkldnn.matmul, _BACKENDS.mkldnn.conv, _BACKENDS.mkldnn.rnn)


@contextmanager
def full_precision() -> Iterator[None]:
    """TF32, bfloat16 multiplication and autocast off, and as they were afterwards. cuDNN's convolutions use TF32
    unless told otherwise: ten bits of a number, which decides close calls by chance."""
    before = [operation.fp32_precision for operation in _OPERATIONS]
    with ExitStack() as stack:
        for device in ("cuda", "cpu"):
            stack.enter_context(torch.autocast(device, enabled=False))
        try:
            for operation in _OPERATIONS:
                operation.fp32_precision = "ieee"
            yield
        finally:
            for operation, precision in zip(_OPERATIONS, before, strict=True):
                operation.fp32_precision = precision
