"""XMP packets, edited as text: taken apart and put together again they would lose what their writers care for.

Source: ISO 16684-1 (a property is an attribute of a description, or an element); Exif 2.32 for XMP; IPTC Photo
Metadata Standard 2023.1; Adobe XMP Specification, part 2.
"""

import re
from bisect import bisect
from collections.abc import Iterator

XMP_START = b"http://ns.adobe.com/xap/1.0/\x00"
"""What stands before the packet in a JPEG."""

# Where a JPEG's packet says that more follows, which no segment of a result would hold.
_EXTENSION = rb"xmpNote:HasExtendedXMP"

_SIZES = {
    rb"(?:tiff:ImageWidth|exif:PixelXDimension)": 0,
    rb"(?:tiff:ImageLength|exif:PixelYDimension)": 1,
}
# Whatever prefix a packet gives to a namespace, and in whichever: of the IPTC's and Photoshop's names, W3C's for
# coordinates (`geo:lat`), and those that makers of drones and programs came upon, none stands for anything but a place.
_PLACES = (
    rb"""(?!xmlns:)(?:[^\s<>/=:"'&]+:)?(?:lat|long|alt|lat_long|(?i:GPS\w*|\w*Latitude|\w*Longitude|City|State"""
    rb"""|ProvinceState|Country(?:Code|Name)?|WorldRegion|Sub-?location|Location\w*|shotLocation))"""
)
_FOLLOWING = rb"hdrgm:Version|G?Container:Directory|GCamera:(?:MicroVideo|MotionPhoto)|Camera:MotionPhoto"
_EXTRA_PICTURES = rb"(?:hdrgm|Container|GContainer|GCamera|Camera|HDRGainMap|apdi):\w+"
_DEVELOPING = rb"crs:\w+"
_THUMBNAILS = rb"xmp:Thumbnails"


def without_place(xmp: bytes) -> bytes | None:
    """Return the packet without coordinates and without the names of places; None for one that is not UTF-8.

    JPEG and PNG allow no other encoding, TIFF does, and in none of the others (UTF-16, UTF-32) would names be found.
    """
    return None if b"\x00" in xmp.rstrip(b"\x00") else _without(xmp, _PLACES)


def without_extra_pictures(xmp: bytes) -> bytes:
    """Return the packet without claims that a gain map or a clip follows the picture."""
    return _without(xmp, _EXTRA_PICTURES)


def names_extra_pictures(xmp: bytes) -> bool:
    """Whether the packet claims that a gain map or a clip follows the picture."""
    return re.search(rb"[\s<](?:" + _FOLLOWING + rb")[\s=>]", xmp) is not None


def without_developing(xmp: bytes) -> bytes:
    """Return the packet without Camera Raw's settings, which programs would apply to developed pixels once more."""
    return _without(xmp, _DEVELOPING)


def without_extension(xmp: bytes) -> bytes:
    """Return the packet without its claim that a second part follows, which JPEGs hold in segments of their own."""
    return _without(xmp, _EXTENSION)


def upright(xmp: bytes, width: int, height: int, *, turned: bool) -> bytes:
    """Return the packet of a picture that now has this size and, where it was turned, stands upright."""
    if turned:
        xmp = _with_number(xmp, rb"tiff:Orientation", b"1")
    for name, axis in _SIZES.items():
        xmp = _with_number(xmp, name, b"%d" % (width, height)[axis])
    return _without(xmp, _THUMBNAILS)


def _with_number(xmp: bytes, name: bytes, value: bytes) -> bytes:
    """Set a number that stands as an attribute (`name="6"`) or as an element (`<name>6</name>`)."""
    return re.sub(rb"(" + name + rb"""(?:\s*=\s*["']|>)\s*)\d+""", rb"\g<1>" + value, xmp)


def _without(xmp: bytes, names: bytes) -> bytes:
    """Return the packet without some properties, as attributes and as elements with all that is in them."""
    kept = re.sub(rb"\s(?:" + names + rb""")\s*=\s*(?:"[^"]*"|'[^']*')""", b"", xmp)
    parts, place = [], 0
    for start, end in _elements(kept, names):
        parts.append(kept[place:start])
        place = end
    return b"".join((*parts, kept[place:]))


def _elements(xmp: bytes, names: bytes) -> Iterator[tuple[int, int]]:
    """Yield where elements of some names begin and end, none inside another.

    One forward scan: a pattern that looks for the end of each would begin anew at every tag that is never closed, which
    takes minutes for a megabyte of them.
    """
    closings: dict[bytes, list[tuple[int, int]]] = {}
    for found in re.finditer(rb"</(" + names + rb")\s*>", xmp):
        closings.setdefault(found[1], []).append(found.span())
    tag_end, end = -1, 0
    for found in re.finditer(rb"<(" + names + rb")(?=[\s>]|/>)", xmp):
        if found.start() < end:
            continue
        if tag_end < found.end():
            tag_end = xmp.find(b">", found.end())
        if tag_end < 0:
            return
        if xmp[tag_end - 1 : tag_end] == b"/":
            end = tag_end + 1
        else:
            behind = closings.get(found[1], [])
            nearest = bisect(behind, (tag_end, 0))
            if nearest == len(behind):
                continue
            end = behind[nearest][1]
        yield found.start(), end
