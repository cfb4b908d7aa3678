"""Our PNG writer against a reader that is not ours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from robustness_lib.png import png_bytes


@pytest.mark.parametrize(("channels", "mode"), [(3, "RGB"), (1, "L")])
def test_every_pixel_comes_back(channels: int, mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, channels), dtype=np.uint8)
    image = Image.open(io.BytesIO(png_bytes(pixels)))
    assert image.mode == mode
    image.verify()  # checksums of every chunk
    assert (np.asarray(Image.open(io.BytesIO(png_bytes(pixels)))).reshape(pixels.shape) == pixels).all()


@pytest.mark.parametrize(("shape", "dtype"), [((5, 7), "uint8"), ((5, 7, 3), "float32"), ((5, 7, 4), "uint8")])
def test_other_arrays_are_refused(shape: tuple[int, ...], dtype: str) -> None:
    with pytest.raises(ValueError, match="uint8 of shape"):
        png_bytes(np.zeros(shape, dtype))
