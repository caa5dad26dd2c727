"""Radiance .hdr panoramas: reading them, and looking out of them through a camera's window."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lowlight_cli.degrade import Picture
from lowlight_cli.errors import InputError
from lowlight_cli.images import default_pixel_budget


def read_radiance(path: Path) -> Picture:
    """Read a Radiance RGBE picture, `(height, width, 3)` linear light (Ward, *Real Pixels*, 1991; run-length coded).

    Raises:
        InputError: the file cannot be read, is none, or has more pixels than `default_pixel_budget`.
    """
    try:
        data = path.read_bytes()
        header, _, rest = data.partition(b"\n\n")
        size, _, body = rest.partition(b"\n")
        words = size.split()
        if not header.startswith(b"#?") or words[0::2] != [b"-Y", b"+X"]:
            raise InputError(f"{path}: it is no Radiance picture, or lies on its side")
        height, width = int(words[1]), int(words[3])
        if height * width > default_pixel_budget():
            raise InputError(f"{path}: it says that it is {width}x{height} pixels, more than memory is for")
        rgbe = _scanlines(body, height, width)
    except (OSError, ValueError, IndexError) as error:
        raise InputError(f"{path}: it cannot be read: {error}") from error
    scale = np.ldexp(np.float32(1.0), rgbe[..., 3:].astype(np.int32) - 136)
    return (rgbe[..., :3] * scale).astype(np.float32)


def _scanlines(body: bytes, height: int, width: int) -> NDArray[np.uint8]:
    """Undo the run-length code: each line holds its four channels one after the other."""
    lines = np.empty((height, 4, width), np.uint8)
    place = 0
    for line in lines:
        if body[place : place + 2] != b"\x02\x02":
            raise ValueError("a scan line is not run-length coded")
        place += 4
        for channel in line:
            x = 0
            while x < width:
                count = body[place]
                if count > 128:
                    channel[x : x + count - 128] = body[place + 1]
                    x, place = x + count - 128, place + 2
                else:
                    channel[x : x + count] = np.frombuffer(body, np.uint8, count, place + 1)
                    x, place = x + count, place + 1 + count
    return lines.transpose(0, 2, 1)


def look(panorama: Picture, *, yaw: float, pitch: float, field: float, size: tuple[int, int]) -> Picture:
    """A perspective view `(height, width, 3)` of an equirectangular panorama; angles in radians, `field` across."""
    height, width = size
    focal = width / 2 / math.tan(field / 2)
    x = (np.arange(width, dtype=np.float32) - (width - 1) / 2) / focal
    y = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None] / focal
    down = y * math.cos(pitch) - math.sin(pitch)
    ahead = math.cos(pitch) + y * math.sin(pitch)
    longitude = np.arctan2(np.broadcast_to(x, (height, width)), ahead) + yaw
    latitude = np.arctan2(down, np.hypot(x, ahead))
    rows, columns = panorama.shape[:2]
    across = (longitude / (2 * math.pi)) % 1.0 * columns
    along = np.clip((latitude / math.pi + 0.5) * rows - 0.5, 0, rows - 1.001)
    left, top = np.floor(across).astype(int), np.floor(along).astype(int)
    fx, fy = (across - left)[..., None].astype(np.float32), (along - top)[..., None].astype(np.float32)
    right = (left + 1) % columns
    left %= columns
    upper = panorama[top, left] * (1 - fx) + panorama[top, right] * fx
    lower = panorama[top + 1, left] * (1 - fx) + panorama[top + 1, right] * fx
    view: Picture = upper * (1 - fy) + lower * fy
    return view
