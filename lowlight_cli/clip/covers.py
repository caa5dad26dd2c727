"""Cover pictures of clips, which hold metadata of their own, made anew without it."""

import io

from lowlight_cli.errors import LowlightError
from lowlight_cli.images import read_picture, write_picture
from lowlight_cli.settings import Encoding, Metadata

_KINDS = ("JPEG", "PNG", "BMP")  # that containers hold as covers


def cleaned_cover(content: bytes, *, metadata: Metadata, most_pixels: int) -> bytes | None:
    """Return a cover picture of the same kind without what `metadata` drops; None for what cannot be read."""
    made = io.BytesIO()
    try:
        picture = read_picture(content, pixel_budget=most_pixels)
        if picture.format not in _KINDS:
            return None
        write_picture(picture, made, encoding=Encoding(metadata=metadata))
    except LowlightError:
        return None
    return made.getvalue()
