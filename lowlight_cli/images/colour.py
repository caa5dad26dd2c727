"""ICC profiles that can be calculated in both directions: grey, and RGB of three curves and a matrix.

That is what cameras, phones and editors write (Display P3, Adobe RGB, ProPhoto, grey gamma). Everything is computed in
linear light and unclipped, so that a colour outside sRGB survives the way to the network and back. Profiles built on
lookup tables (CMYK, Lab, printers, some scanners) have no exact way back; `decode` turns those pictures into sRGB.

Source: ICC.1:2022 (curveType 10.6, parametricCurveType 10.18, three-component matrix-based profiles F.3); IEC 61966-2-1
for sRGB.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

# A curve takes encoded values in [0, 1] to linear light in [0, 1]; it never falls.
Curve = Callable[[Doubles], Doubles]

# Linear sRGB to the profile connection space (XYZ under D50, Bradford-adapted): the columns of every sRGB profile.
_SRGB_TO_PCS: Doubles = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
LUMINANCE: Floats = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)

# A residual outside the sRGB gamut is scaled with the picture's own gain, but never by more than this.
_MOST_GAIN = np.float32(64.0)
# Two sRGB values nearer than this are the same: a quarter of a 16-bit step.
_SAME = np.float32(0.25 / 65535)
# A profile whose curves and primaries agree with sRGB to this much is sRGB.
_SRGB_TOLERANCE = 0.004
# ICC tables hold at most this many points; the format would allow four thousand million.
_MOST_CURVE_POINTS = 1 << 16


class ProfileError(ValueError):
    """A profile that is damaged, or that this module cannot calculate in both directions."""


@dataclass(frozen=True, eq=False)
class Profile:
    """A colour space: one curve per channel and, for RGB, the matrix from its light to linear sRGB.

    `curves` has 1 entry (grey) or 3 (red, green, blue).
    """

    curves: tuple[Curve, ...]
    to_srgb: Floats
    is_srgb: bool
    _tables: dict[int, tuple[Floats, ...]] = field(default_factory=dict, repr=False)
    _thresholds: dict[int, tuple[Floats, ...]] = field(default_factory=dict, repr=False)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return len(self.curves)

    def linear(self, pixels: NDArray[np.integer]) -> Floats:
        """Turn integers `(h, w, channels)` into linear sRGB `(3, h, w)`; values outside [0, 1] are kept."""
        tables = self._tables_for(int(np.iinfo(pixels.dtype).max))
        own = np.stack([table[pixels[..., i]] for i, table in enumerate(tables)])
        return _mix(self.to_srgb, own) if self.channels == 3 else np.repeat(own, 3, axis=0)

    def encode(self, linear: Floats, like: NDArray[np.integer]) -> NDArray[np.integer]:
        """Turn linear sRGB `(3, h, w)` into the nearest integers `(h, w, channels)` of this profile.

        `like` gives the dtype. Grey takes the luminance.
        """
        top = int(np.iinfo(like.dtype).max)
        if self.channels == 3:
            own = _mix(np.linalg.inv(self.to_srgb.astype(np.float64)).astype(np.float32), linear)
        else:
            own = luminance(linear)[None]
        thresholds = self._thresholds_for(top)
        levels = [np.searchsorted(steps, plane) for steps, plane in zip(thresholds, own, strict=True)]
        return np.stack(levels, axis=-1).astype(like.dtype)

    def _tables_for(self, top: int) -> tuple[Floats, ...]:
        if top not in self._tables:
            levels = np.linspace(0.0, 1.0, top + 1)
            self._tables[top] = tuple(curve(levels).astype(np.float32) for curve in self.curves)
        return self._tables[top]

    def _thresholds_for(self, top: int) -> tuple[Floats, ...]:
        """Return, per channel, the linear light at which each level gives way to the next."""
        if top not in self._thresholds:
            halves = (np.arange(top) + 0.5) / top
            self._thresholds[top] = tuple(curve(halves).astype(np.float32) for curve in self.curves)
        return self._thresholds[top]


def srgb_to_linear(encoded: Floats) -> Floats:
    """Turn sRGB-encoded values in [0, 1] into linear light."""
    low = encoded * np.float32(1 / 12.92)
    high = ((encoded + np.float32(0.055)) * np.float32(1 / 1.055)) ** np.float32(2.4)
    return np.where(encoded <= np.float32(0.04045), low, high)


def linear_to_srgb(linear: Floats) -> Floats:
    """Turn linear light in [0, 1] into sRGB-encoded values."""
    high = np.float32(1.055) * linear ** np.float32(1 / 2.4) - np.float32(0.055)
    return np.where(linear <= np.float32(0.0031308), linear * np.float32(12.92), high)


def luminance(linear: Floats) -> Floats:
    """Return the relative luminance `(h, w)` of linear sRGB `(3, h, w)`."""
    return np.tensordot(LUMINANCE, linear, axes=1)


def grey_of(rows: Floats) -> Floats:
    """Return the grey `(h, w)` that is as bright as sRGB floats `(3, h, w)`.

    Equal channels are grey already: passed on as they are, an untouched picture stays exact.
    """
    grey = linear_to_srgb(luminance(srgb_to_linear(rows)))
    equal = (rows[0] == rows[1]) & (rows[1] == rows[2])
    return np.where(equal, rows[0], grey)


def from_profile(pixels: NDArray[np.integer], profile: Profile) -> Floats:
    """Turn integers `(h, w, channels)` into sRGB `(3, h, w)`, clamped to [0, 1]."""
    return linear_to_srgb(np.clip(profile.linear(pixels), 0.0, 1.0))


def into_profile(result: Floats, own: NDArray[np.integer], profile: Profile) -> NDArray[np.integer]:
    """Turn a network's result back into `profile`: sRGB `(3, h, w)` in [0, 1] to integers `(h, w, channels)`.

    `own` holds the same rows before the network. What sRGB could not show of them (the part outside [0, 1] in linear
    light) is scaled with the luminance gain of each pixel and added back, so a saturated colour stays saturated. A
    pixel the network left alone comes back exactly.
    """
    full = profile.linear(own)
    shown = np.clip(full, 0.0, 1.0)
    unchanged = (np.abs(linear_to_srgb(shown) - result) <= _SAME).all(axis=0)
    lit = srgb_to_linear(result)
    if (full != shown).any():
        gain = luminance(lit) / np.maximum(luminance(shown), np.float32(1e-6))
        lit += np.minimum(gain, _MOST_GAIN) * (full - shown)
    return np.where(unchanged[..., None], own, profile.encode(lit, like=own))


def parse_profile(icc: bytes) -> Profile:
    """Read a grey or matrix-based RGB profile.

    Raises:
        ProfileError: the profile is damaged, of another kind, or cannot be inverted.
    """
    try:
        return _parse(icc)
    except (struct.error, IndexError, ValueError, KeyError, np.linalg.LinAlgError) as error:
        raise ProfileError(str(error)) from error


def colour_space(icc: bytes) -> str:
    """Return the profile's colour space (`RGB`, `GRAY`, `CMYK`, `Lab`), or '' when it is damaged."""
    return icc[16:20].decode("ascii", "replace").strip() if icc[36:40] == b"acsp" else ""


def _parse(icc: bytes) -> Profile:
    tags = _tags(icc)
    space = colour_space(icc)
    if space == "GRAY":
        return Profile((_curve(tags[b"kTRC"]),), np.ones((1, 1), dtype=np.float32), is_srgb=False)
    if space != "RGB":
        raise ProfileError(f"colour space {space!r}")
    curves = tuple(_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
    to_pcs = np.stack([_xyz(tags[name]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")], axis=1)
    to_srgb = np.linalg.solve(_SRGB_TO_PCS, to_pcs)
    if abs(np.linalg.det(to_srgb)) < 1e-3 or np.abs(to_srgb).max() > 16:
        raise ProfileError("its primaries do not span a colour space")
    levels = np.linspace(0.0, 1.0, 256)
    wanted = srgb_to_linear(levels.astype(np.float32))
    is_srgb = np.abs(to_srgb - np.eye(3)).max() < _SRGB_TOLERANCE and all(
        np.abs(curve(levels) - wanted).max() < _SRGB_TOLERANCE for curve in curves
    )
    return Profile(curves, to_srgb.astype(np.float32), is_srgb=bool(is_srgb))


def _tags(icc: bytes) -> dict[bytes, bytes]:
    if icc[36:40] != b"acsp":
        raise ProfileError("it is no ICC profile")
    (count,) = struct.unpack_from(">I", icc, 128)
    if count > 256:
        raise ProfileError("its table of tags is damaged")
    tags: dict[bytes, bytes] = {}
    for index in range(count):
        name, offset, size = struct.unpack_from(">4sII", icc, 132 + 12 * index)
        tags[name] = icc[offset : offset + size]
    return tags


def _xyz(tag: bytes) -> Doubles:
    if tag[:4] != b"XYZ ":
        raise ProfileError("a primary is missing")
    return np.array(struct.unpack_from(">3i", tag, 8), dtype=np.float64) / 65536


def _curve(tag: bytes) -> Curve:
    kind = tag[:4]
    if kind == b"curv":
        curve = _table_curve(tag)
    elif kind == b"para":
        curve = _parametric_curve(tag)
    else:
        raise ProfileError("a tone curve is missing")
    probe = curve(np.linspace(0.0, 1.0, 1025))
    if not np.isfinite(probe).all() or (np.diff(probe) < -1e-6).any() or probe[-1] - probe[0] < 0.1:
        raise ProfileError("a tone curve does not rise")
    return curve


def _table_curve(tag: bytes) -> Curve:
    (count,) = struct.unpack_from(">I", tag, 8)
    if count > _MOST_CURVE_POINTS:
        raise ProfileError("a tone curve is too long")
    points = struct.unpack_from(f">{count}H", tag, 12)
    if count == 0:
        return lambda x: x
    if count == 1:
        gamma = _sane_gamma(points[0] / 256)
        return lambda x: x**gamma
    values = np.maximum.accumulate(np.array(points, dtype=np.float64) / 65535)
    if np.abs(values - np.array(points) / 65535).max() > 0.01:
        raise ProfileError("a tone curve does not rise")
    places = np.linspace(0.0, 1.0, count)
    return lambda x: np.interp(x, places, values)


def _parametric_curve(tag: bytes) -> Curve:
    """Read a formula of ICC.1:2022, table 68: `(ax + b)^g + e` from d upwards, `cx + f` below."""
    (kind,) = struct.unpack_from(">H", tag, 8)
    numbers = [value / 65536 for value in struct.unpack_from(f">{(1, 3, 4, 5, 7)[kind]}i", tag, 12)]
    g, a, b, c, d, e, f = _sane_gamma(numbers[0]), 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    if kind in (1, 2):
        a, b = numbers[1:3]
        if a == 0:
            raise ProfileError("a tone curve divides by zero")
        d = -b / a
        e = f = numbers[3] if kind == 2 else 0.0
    elif kind >= 3:
        a, b, c, d = numbers[1:5]
        if kind == 4:
            e, f = numbers[5:7]
    return lambda x: np.clip(np.where(x >= d, np.maximum(a * x + b, 0.0) ** g + e, c * x + f), 0.0, 1.0)


def _sane_gamma(gamma: float) -> float:
    """Return an exponent that a display can have; damaged ones would overflow."""
    if not 0.05 <= gamma <= 20:
        raise ProfileError("a tone curve has an absurd exponent")
    return gamma


def _mix(matrix: Floats, planes: Floats) -> Floats:
    mixed: Floats = np.einsum("ij,jhw->ihw", matrix, planes)
    return mixed
