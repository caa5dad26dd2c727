"""Which files are clips: suffixes and first bytes, and the container that each result is written in."""

from lowlight_cli.paths.media import PICTURE_BRANDS, Media

# What ffmpeg calls the writer of each format of ours.
MUXERS = {
    "mp4": "mp4",
    "mov": "mov",
    "3gp": "3gp",
    "mkv": "matroska",
    "webm": "webm",
    "flv": "flv",
    "ts": "mpegts",
}

_SUFFIXES = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".qt": "mov",
    ".3gp": "3gp",
    ".3g2": "3gp",
    ".mkv": "mkv",
    ".webm": "webm",
    ".flv": "flv",
    ".ts": "ts",
    ".mts": "ts",
    ".m2ts": "ts",
    ".avi": "avi",
    ".wmv": "wmv",
    ".asf": "wmv",
    ".mpg": "mpeg",
    ".mpeg": "mpeg",
    ".vob": "mpeg",
    ".ogv": "ogg",
    ".mxf": "mxf",
    ".y4m": "y4m",
    ".gif": "gif",
}
_FTYP_BRANDS = ((b"qt  ", "mov"), (b"3gp", "3gp"), (b"3g2", "3gp"))
_ATOMS = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_MARKS = (
    (b"FLV\x01", "flv"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "wmv"),
    (b"\x00\x00\x01\xba", "mpeg"),
    (b"\x00\x00\x01\xb3", "mpeg"),
    (b"OggS", "ogg"),
    (b"\x06\x0e\x2b\x34\x02\x05\x01\x01", "mxf"),
    (b"YUV4MPEG2", "y4m"),
    (b"GIF87a", "gif"),
    (b"GIF89a", "gif"),
)


def sniff(head: bytes) -> str | None:
    """Name the container of a file's first bytes, or None."""
    kind = head[4:8]
    if kind == b"ftyp":
        brand = head[8:12]
        if brand in PICTURE_BRANDS:
            return None
        return next((name for mark, name in _FTYP_BRANDS if brand.startswith(mark)), "mp4")
    if kind in _ATOMS:
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "webm" if b"webm" in head else "mkv"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    return next((name for mark, name in _MARKS if head.startswith(mark)), None)


CLIPS = Media(
    noun="clips",
    suffixes=_SUFFIXES,
    sniff=sniff,
    # Containers that cannot say when a frame is shown, or cannot hold what modern encoders make, become Matroska,
    # which takes every sound track there is; an animated GIF becomes a film.
    written_as={"avi": "mkv", "wmv": "mkv", "mpeg": "mkv", "ogg": "mkv", "mxf": "mkv", "y4m": "mkv", "gif": "mp4"},
)
