"""XMP packets, edited as text: taken apart and put together again they would lose what their writers care for.

Source: ISO 16684-1 (a property is an attribute of a description, or an element); Exif 2.32 for XMP; IPTC Photo
Metadata Standard 2023.1; Adobe XMP Specification, part 2.
"""

import re

XMP_START = b"http://ns.adobe.com/xap/1.0/\x00"
"""What stands before the packet in a JPEG."""

# Where a JPEG's packet says that more follows, which no segment of a result would hold.
_EXTENSION = rb"""\sxmpNote:HasExtendedXMP\s*=\s*(?:"[^"]*"|'[^']*')|<(xmpNote:HasExtendedXMP)>.*?</\1>"""

_SIZES = {
    rb"(?:tiff:ImageWidth|exif:PixelXDimension)": 0,
    rb"(?:tiff:ImageLength|exif:PixelYDimension)": 1,
}
_PLACES = (
    rb"[\w-]+:[Gg][Pp][Ss]\w+|photoshop:(?:City|State|Country)|Iptc4xmpCore:(?:Location|CountryCode)"
    rb"|Iptc4xmpExt:(?:LocationCreated|LocationShown)"
)
_FOLLOWING = rb"hdrgm:Version|G?Container:Directory|GCamera:(?:MicroVideo|MotionPhoto)|Camera:MotionPhoto"
_EXTRA_PICTURES = rb"(?:hdrgm|Container|GContainer|GCamera|Camera|HDRGainMap|apdi):\w+"
_DEVELOPING = rb"crs:\w+"
_THUMBNAILS = rb"xmp:Thumbnails"


def without_place(xmp: bytes) -> bytes:
    """Return the packet without coordinates and without the names of places."""
    return _without(xmp, _PLACES)


def without_extra_pictures(xmp: bytes) -> bytes:
    """Return the packet without claims that a gain map or a clip follows the picture."""
    return _without(xmp, _EXTRA_PICTURES)


def names_extra_pictures(xmp: bytes) -> bool:
    """Whether the packet claims that a gain map or a clip follows the picture."""
    return re.search(rb"[\s<](?:" + _FOLLOWING + rb")[\s=>]", xmp) is not None


def without_developing(xmp: bytes) -> bytes:
    """Return the packet without Camera Raw's settings, which programs would apply to developed pixels once more."""
    return _without(xmp, _DEVELOPING)


def has_extension(xmp: bytes) -> bool:
    """Whether the packet names a second part, which JPEGs hold in segments of their own."""
    return re.search(_EXTENSION, xmp) is not None


def without_extension(xmp: bytes) -> bytes:
    """Return the packet without its claim that a second part follows."""
    return re.sub(_EXTENSION, b"", xmp)


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
    return re.sub(rb"(?s)<(" + names + rb")(?:\s[^>]*)?(?:/>|>.*?</\1>)", b"", kept)
