"""Colour spaces that a file names by a gamma and the places of its primaries, or by a word, as ICC profiles.

That is PNG's own way, and EXIF's of naming Adobe RGB. An encoder keeps ICC profiles but drops PNG's chunks, and few
programs look for EXIF's word; without a profile, a result would look washed out or too dark.

Source: PNG Specification, Third Edition, 11.3.2; Adobe RGB (1998) Color Image Encoding, section 4.3; ICC.1:2001-04
(version 2 profiles), section 6.
"""

import struct
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

# A gamma within this share of 1/2.2 is what writers put down when they mean sRGB.
_SRGB_GAMMA, _TOLERANCE = 1 / 2.2, 0.03
_SRGB_PLACES = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)
_ADOBE_PLACES = (0.3127, 0.329, 0.64, 0.33, 0.21, 0.71, 0.15, 0.06)
_ADOBE_GAMMA = 256 / 563
_D50 = (0.9642, 1.0, 0.8249)
# Bradford's cone response (ICC.1:2022, annex E).
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


def profile_of_png(info: Mapping[str | tuple[int, int], object], *, grey: bool) -> bytes | None:
    """Return a profile for a PNG whose chunks (`info`, in Pillow's words) differ from sRGB, else None."""
    gamma = info.get("gamma")
    if "srgb" in info or not isinstance(gamma, float) or not 0.05 < gamma < 5:
        return None
    places = info.get("chromaticity", _SRGB_PLACES)
    if not isinstance(places, tuple) or len(places) != 8:
        places = _SRGB_PLACES
    has_srgb_places = grey or np.abs(np.subtract(places, _SRGB_PLACES)).max() < 0.005
    if abs(gamma / _SRGB_GAMMA - 1) < _TOLERANCE and has_srgb_places:
        return None
    if grey:
        return _icc("PNG gamma", b"GRAY", {b"kTRC": _curve(gamma)})
    try:
        return _of_places("PNG gamma", gamma, np.array(places))
    except np.linalg.LinAlgError:
        return None


def adobe_rgb() -> bytes:
    """Return a profile for Adobe RGB (1998)."""
    return _of_places("Compatible with Adobe RGB (1998)", _ADOBE_GAMMA, np.array(_ADOBE_PLACES))


def _of_places(name: str, gamma: float, places: NDArray[np.float64]) -> bytes:
    columns = zip((b"rXYZ", b"gXYZ", b"bXYZ"), _columns(places), strict=True)
    curves = dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), _curve(gamma))
    return _icc(name, b"RGB ", {tag: _xyz(*column) for tag, column in columns} | curves)


def _curve(gamma: float) -> bytes:
    return b"curv" + bytes(4) + struct.pack(">IH", 1, min(65535, round(256 / gamma)))


def _columns(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the XYZ of red, green and blue under D50, given x and y of the white and of the three."""
    xy = places.reshape(4, 2)
    if (xy[:, 1] <= 0).any():
        raise np.linalg.LinAlgError("a primary without light")
    xyz = np.column_stack([xy[:, 0] / xy[:, 1], np.ones(4), (1 - xy.sum(axis=1)) / xy[:, 1]])
    white, primaries = xyz[0], xyz[1:]
    scaled = primaries * np.linalg.solve(primaries.T, white)[:, None]
    cones = (_BRADFORD @ np.array(_D50)) / (_BRADFORD @ white)
    adapt = np.linalg.solve(_BRADFORD, cones[:, None] * _BRADFORD)
    adapted: NDArray[np.float64] = scaled @ adapt.T
    return adapted


def _xyz(*values: float) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">3i", *(round(value * 65536) for value in values))


def _icc(name: str, space: bytes, tags: dict[bytes, bytes]) -> bytes:
    """Put together a version 2 display profile; description and copyright are tags it must have."""
    text = name.encode("ascii") + b"\x00"
    description = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = {
        b"desc": description,
        b"cprt": b"text" + bytes(4) + b"none\x00",
        b"wtpt": _xyz(*_D50),
        **tags,
    }
    table, body, start = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    size = start + len(body)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02200000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp"
    return header.ljust(68, b"\x00") + _xyz(*_D50)[8:] + bytes(48) + table + body
