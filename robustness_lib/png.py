"""PNG from an array of bytes, in a dozen lines: no drawing library between the pixels and the page."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["png_bytes"]


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_bytes(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of an (H, W, 3) or, grey, (H, W, 1) array of bytes, pixel for pixel. Raises ValueError on anything
    else."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ValueError(f"png_bytes needs uint8 of shape (H, W, 3) or (H, W, 1); found {pixels.dtype} of "
                         f"{pixels.shape}")
    height, width, channels = pixels.shape
    colour = 2 if channels == 3 else 0  # RGB, or grey; 8 bits a channel
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    rows = np.zeros((height, 1 + channels * width), np.uint8)  # each row begins with its filter; 0 is none
    rows[:, 1:] = pixels.reshape(height, -1)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", header)
        + _chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + _chunk(b"IEND", b"")
    )
