"""What is done with a file's colours: keep its profile, or turn the pixels into sRGB on reading.

Kept are the profiles that `colour` calculates in both directions. A picture in CMYK or Lab, or one whose RGB profile is
a lookup table, becomes sRGB by LittleCMS and is written as sRGB, because there is no exact way back. A damaged profile
never fails a file: its bytes are left out, so that every viewer sees the colours we saw.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image, ImageCms

from lowlight_cli.images.colour import Profile, ProfileError, colour_space, parse_profile

Convert = Callable[[Image.Image], Image.Image]

# Every mode that Pillow gives for files, and the mode that holds it as grey or RGB with or without alpha.
_PLAIN = {
    "1": "L", "L": "L", "LA": "LA", "La": "LA",
    "RGB": "RGB", "RGBX": "RGB", "RGBA": "RGBA", "RGBa": "RGBA", "P": "RGB", "PA": "RGBA",
    "YCbCr": "RGB", "HSV": "RGB", "CMYK": "RGB",
}  # fmt: skip
_GREY_MODES = ("1", "L", "LA", "La", "I")


@dataclass(frozen=True)
class ColourPlan:
    """How to unpack a mode, and the result's profile (`icc` to write, `profile` to calculate)."""

    convert: Convert
    icc: bytes | None = None
    profile: Profile | None = None
    warnings: tuple[str, ...] = ()


def plan_colour(mode: str, icc: bytes | None, *, deep: bool = False) -> ColourPlan:
    """Decide what happens to pixels of a Pillow mode under an embedded profile, if there is one."""
    if mode == "LAB":
        return ColourPlan(_lab_to_srgb(), warnings=("Lab colours are written as sRGB",))
    if mode == "CMYK":
        return _plan_cmyk(icc)
    if not icc:
        return ColourPlan(_plain)
    is_grey = mode.startswith(_GREY_MODES)
    if colour_space(icc) != ("GRAY" if is_grey else "RGB"):
        return _plan_mismatch(icc)
    try:
        profile = parse_profile(icc)
    except ProfileError:
        return _plan_lookup_table(mode, icc, deep)
    return ColourPlan(_plain, icc=icc, profile=None if profile.is_srgb else profile)


def _plain(image: Image.Image) -> Image.Image:
    wanted = _PLAIN[image.mode]
    if "transparency" in image.info:
        wanted = "LA" if wanted == "L" else "RGBA"
    return image if image.mode == wanted else image.convert(wanted)


def _plan_mismatch(icc: bytes) -> ColourPlan:
    """Plan for a profile that cannot belong to these pixels."""
    if not colour_space(icc):
        return ColourPlan(_plain, warnings=("its colour profile is damaged and was left out; read as sRGB",))
    return ColourPlan(_plain, warnings=("its colour profile is for another kind of picture and was left out",))


def _plan_lookup_table(mode: str, icc: bytes, deep: bool) -> ColourPlan:
    if mode in ("RGB", "RGBA", "RGBX", "P", "PA"):
        try:
            to_srgb = _transform(icc, "RGB")
        except _CMS_FAILURES:
            pass
        else:
            if deep:
                # LittleCMS, as Pillow offers it, knows 8 bits only; 16 bits in the right profile are worth more than
                # exact colours for the network.
                return ColourPlan(_plain, icc=icc, warnings=("its colour profile was only approximated",))
            return ColourPlan(
                lambda image: _with_alpha(image, to_srgb),
                warnings=("its colour profile has no exact way back; the result is written as sRGB",),
            )
    return ColourPlan(_plain, warnings=("its colour profile is damaged and was left out; read as sRGB",))


def _plan_cmyk(icc: bytes | None) -> ColourPlan:
    warnings = ["CMYK colours are written as sRGB"]
    if icc and colour_space(icc) == "CMYK":
        try:
            return ColourPlan(_transform(icc, "CMYK"), warnings=tuple(warnings))
        except _CMS_FAILURES:
            warnings.append("its colour profile is damaged and was left out")
    return ColourPlan(_plain, warnings=tuple(warnings))


_CMS_FAILURES = (ImageCms.PyCMSError, OSError, ValueError, TypeError)


def _transform(icc: bytes, mode: str) -> Convert:
    """Return a function from `mode` to sRGB, 8 bits: relative colorimetric, black to black, as editors do it.

    By the perceptual intent a print's black is a grey, which a lift makes a haze.
    """
    source = ImageCms.ImageCmsProfile(io.BytesIO(icc))
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB", intent, flags)

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None  # only a transform in place returns nothing
        return converted

    return convert


def _with_alpha(image: Image.Image, to_srgb: Convert) -> Image.Image:
    plain = _plain(image)
    if plain.mode == "RGB":
        return to_srgb(plain)
    converted = to_srgb(plain.convert("RGB"))
    converted.putalpha(plain.getchannel("A"))
    return converted


def _lab_to_srgb() -> Convert:
    # Optimised, eight bits of Lab are off by up to 10 of 255 in shadows, of which a lift makes a tint.
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB", flags=ImageCms.Flags.NOOPTIMIZE
    )

    def convert(image: Image.Image) -> Image.Image:
        converted = ImageCms.applyTransform(image, transform)
        assert converted is not None
        return converted

    return convert
