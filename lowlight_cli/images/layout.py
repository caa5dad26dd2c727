"""How the samples of an opened Pillow image lie in its file: asked before anything is decoded."""

import re

from PIL import Image, ImageFile

from lowlight_cli.images.tiff_tags import Tag

_DEEP_COLOUR = re.compile("(RGB|RGBX|RGBA|RGBa|LA);16[BLN]")


def depth_of(image: ImageFile.ImageFile) -> int:
    """Return the bits per channel of the picture that `picture_of` makes of an opened image: 8 or 16."""
    is_deep = is_deep_colour(image) or most_of_ppm(image) > 255 or image.mode.startswith(("I", "F"))
    return 16 if is_deep or (needs_planes(image) and 16 in tiff_tag(image, Tag.BITS_PER_SAMPLE)) else 8


def is_deep_mode(raw: str) -> bool:
    """Whether a raw mode stands for colour, or grey with alpha, of 16 bits per channel."""
    return _DEEP_COLOUR.fullmatch(raw) is not None


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether an image holds colour, or grey with alpha, whose 16 bits two passes of Pillow bring out."""
    # The frames of an animated PNG are drawn one over another, which Pillow does in 8 bits.
    composed = image.format == "PNG" and getattr(image, "is_animated", False)
    return is_deep_mode(raw_mode(image)) and not composed and not _is_planar(image)


def needs_planes(image: ImageFile.ImageFile) -> bool:
    """Tell a TIFF whose channels lie apart where Pillow would read 8 bits of 16, or take alpha for what it is not."""
    has_more = 16 in tiff_tag(image, Tag.BITS_PER_SAMPLE) or image.mode in ("LA", "La", "RGBA")
    return _is_planar(image) and has_more and image.mode in ("LA", "La", "RGB", "RGBX", "RGBA")


def first_pass(raw: str) -> str:
    """Return the raw mode that unpacks the high bytes as they are.

    Pillow divides premultiplied values by alpha while unpacking, which is wrong for one byte of two. Grey with alpha
    needs one pass only: its four bytes a pixel are what Pillow calls RGBA.
    """
    return "RGBA" if raw == "LA;16B" else raw.replace("RGBa", "RGBA")


def most_of_ppm(image: ImageFile.ImageFile) -> int:
    """Return the largest value of a binary colour PPM (Pillow's second argument), 0 for all else."""
    tile = image.tile[0] if image.tile and image.format == "PPM" and image.mode == "RGB" else None
    if tile is None or tile.codec_name != "ppm" or not isinstance(tile.args, tuple):
        return 0
    return int(tile.args[1])


def raw_mode(image: ImageFile.ImageFile) -> str:
    """Return how the file's bytes are unpacked, in Pillow's words (`RGB;16B`); '' where it does not say."""
    arguments = image.tile[0].args if image.tile else None
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _is_planar(image: ImageFile.ImageFile) -> bool:
    return len(image.getbands()) > 1 and 2 in tiff_tag(image, Tag.PLANAR_CONFIGURATION)


def set_raw_mode(image: ImageFile.ImageFile, raw: str) -> None:
    """Have the file's bytes unpacked in another way than Pillow chose."""
    image.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in image.tile
    ]


def tiff_tag(image: Image.Image, tag: int) -> tuple[int, ...]:
    """Return the values of a TIFF's tag; none for a tag that is not there, and for other formats."""
    tags = getattr(image, "tag_v2", {})
    value = tags.get(tag, ())
    return value if isinstance(value, tuple) else (value,)
