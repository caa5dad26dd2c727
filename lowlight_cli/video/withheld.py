"""What `--metadata` holds back of a clip beside its pixels: names of places, tracks that tell them, attachments."""

import re
from collections.abc import Iterator
from contextlib import suppress

import av
from av.container import InputContainer
from av.stream import AttachmentStream, Stream

from lowlight_cli.settings import Metadata
from lowlight_cli.video.facts import ClipFacts, open_clip

# Whole words of a tag's name, but for those that stand in no other word: com.apple.quicktime.location.ISO6709,
# location-eng, RECORDING_LOCATION, GPSCoordinates, IPTC:City.
_PLACE_NAME = re.compile(
    r"location|gps|iso6709|xyz|latitude|longitude|altitude|coordinate|geotag"
    r"|(?<![a-z])(?:lat|lon|lng|geo|city|town|state|province|region|country|address|street|place|venue)(?![a-rt-z])",
    re.IGNORECASE,
)
# As drones and action cameras write among their subtitles: GPS (2.2945, 48.8581, 19), [longtitude: 2.2945], which is
# how one maker spells it, and the sentences of NMEA 0183; but no thousands: "How long? 12,500 feet."
_PLACE_TOLD = re.compile(
    rb"\b(?:gps|home|lat(?:itude)?|lon(?:g(?:t?itude)?)?|lng)\b[^\w\n-]{0,6}[NSEW]?[^\w\n-]{0,2}-?\d{1,3}(?:\.\d{3}|,\d{4})"
    rb"|\$G[A-Z](?:RMC|GGA|GLL),",
    re.IGNORECASE,
)
_PACKETS_SEEN, _BYTES_SEEN = 8, 64 << 20  # of each text track, and of the clip
_FONT = re.compile(r"font|opentype|truetype|\.(?:ttf|otf|ttc|woff2?)$", re.IGNORECASE)


def names_place(tag: str) -> bool:
    """Whether a tag of this name says where a clip was made."""
    return _PLACE_NAME.search(tag) is not None


def withheld_tracks(source: InputContainer, facts: ClipFacts, metadata: Metadata) -> dict[int, str]:
    """Return the tracks that do not go over, by their indices, with why: what tells places, and attachments."""
    if metadata == "keep":
        return {}
    withheld = dict.fromkeys(_telling_places(source, facts), "it tells places")
    for stream in filter(is_attachment, source.streams):
        if metadata == "strip" and not _is_font(stream):  # subtitles are drawn with fonts
            withheld[stream.index] = "of attachments only fonts go over"
        elif _PLACE_TOLD.search(getattr(stream, "data", None) or b""):
            withheld[stream.index] = "it tells places"
    return withheld


def is_attachment(stream: Stream) -> bool:
    """Whether a track is a file that lies in the clip."""
    return isinstance(stream, AttachmentStream) or stream.type == "attachment"


def _is_font(stream: Stream) -> bool:
    kind = getattr(stream, "mimetype", None) or ""
    return bool(_FONT.search(kind) or _FONT.search(stream.metadata.get("filename", "")))


def _telling_places(source: InputContainer, facts: ClipFacts) -> Iterator[int]:
    """Yield the text tracks among whose first packets one tells a place."""
    looked_at = {stream.index: 0 for stream in source.streams if stream.type == "subtitle"}
    if not looked_at:
        return
    size = 0
    # Where the clip breaks off no track goes on.
    with suppress(av.FFmpegError, OSError), open_clip(facts.path, most_pixels=facts.most_pixels) as container:
        for packet in container.demux():
            size += packet.size
            index = packet.stream.index
            if index in looked_at and packet.size:
                looked_at[index] += 1
                tells = _PLACE_TOLD.search(bytes(packet)) is not None
                if tells:
                    yield index
                if tells or looked_at[index] == _PACKETS_SEEN:
                    del looked_at[index]
            if not looked_at or size > _BYTES_SEEN:
                return
