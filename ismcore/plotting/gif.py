"""Frames to an animated GIF, in one palette for all of them, so that colours never flicker."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["Animation", "gif_bytes"]

FRAME_MS, HOLD_MS = 60, 2500
COLOURS = 64


@dataclass(frozen=True, eq=False)
class Animation:
    """An animation, which Jupyter shows as the last line of a cell; where it cannot, the last frame.

    Attributes:
        gif: The GIF file.
        last: The last frame as a PNG file.
    """

    gif: bytes = field(repr=False)
    last: bytes = field(repr=False)

    @classmethod
    def of(cls, frames: Sequence[np.ndarray]) -> Animation:
        """That of frames as in `gif_bytes`."""
        stream = io.BytesIO()
        Image.fromarray(frames[-1]).save(stream, format="PNG")
        return cls(gif_bytes(frames), stream.getvalue())

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        """IPython's protocol: the GIF in HTML, which viewers of notebooks prefer, and the last frame."""
        source = f"data:image/gif;base64,{base64.b64encode(self.gif).decode()}"
        page = f'<img alt="animation of a fit" style="max-width: 100%" src="{source}">'
        return {"text/html": page, "image/png": self.last, "text/plain": repr(self)}


def gif_bytes(frames: Sequence[np.ndarray]) -> bytes:
    """A GIF that loops, and rests on its last frame.

    The palette is that of the first, the middle and the last frame. Pillow's own quantising averages colours, which turns a
    white background grey, and chooses anew for every frame.

    Args:
        frames: Pictures of one size, (height, width, 3) of uint8. Neighbours that come out equal become one frame that
            lasts longer.
    """
    palette = _commonest_colours(np.stack([frames[0], frames[len(frames) // 2], frames[-1]]))
    nearest = _nearest_colour(palette)
    images = [Image.fromarray(nearest[_bins(frame)]) for frame in frames]
    for image in images:
        image.putpalette(palette.tobytes())
    stream = io.BytesIO()
    images[0].save(
        stream,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=[FRAME_MS] * (len(images) - 1) + [HOLD_MS],
        loop=0,
        optimize=True,
    )
    return stream.getvalue()


def _bins(rgb: np.ndarray) -> np.ndarray:
    """Number of each colour's bin, (...,), for colours (..., 3) of uint8, eight shades of a channel to a bin."""
    red, green, blue = np.moveaxis(rgb.astype(np.uint16) >> 3, -1, 0)
    return np.asarray(red << 10 | green << 5 | blue)


def _commonest_colours(rgb: np.ndarray) -> np.ndarray:
    """The palette: the commonest colours, one a bin, (COLOURS or fewer, 3) of uint8."""
    wide = rgb.reshape(-1, 3).astype(np.uint32)
    packed, counts = np.unique(wide[:, 0] << 16 | wide[:, 1] << 8 | wide[:, 2], return_counts=True)
    packed = packed[np.argsort(-counts, kind="stable")]
    colours = np.stack([packed >> 16, packed >> 8 & 255, packed & 255], axis=1).astype(np.uint8)
    first_of_bin = np.sort(np.unique(_bins(colours), return_index=True)[1])
    return np.asarray(colours[first_of_bin[:COLOURS]])


def _nearest_colour(palette: np.ndarray) -> np.ndarray:
    """For every bin the position of the palette's colour in it, or else of the one nearest to its centre, (32768,)."""
    number = np.arange(1 << 15)
    centres = np.stack([number >> 10, number >> 5 & 31, number & 31], axis=1) * 8 + 4
    gap = np.square(centres[:, None, :] - palette.astype(np.int64)).sum(axis=-1)
    nearest = gap.argmin(axis=1).astype(np.uint8)
    nearest[_bins(palette)] = np.arange(len(palette))
    return np.asarray(nearest)
