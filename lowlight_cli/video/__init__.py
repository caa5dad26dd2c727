"""Clips: files to frames and back, with everything that lies beside the film kept.

Built on PyAV, which is ffmpeg's libraries in this very process, and not on the ffmpeg program that imageio-ffmpeg
ships, run as a child. A pipe of raw frames carries no timestamps, so a child can only promise a constant rate; here
every frame keeps its own, and variable rates stay in sync with nothing to measure or guess. Sound, subtitles,
chapters, attachments and colour tags are copied as data instead of being talked about in argument lists, a failure to
write is an exception with its errno instead of a line on somebody's stderr, and there is no second process to
outlive us when we are killed. It is cheaper, too: a 360p film decoded, copied and encoded again took a sixth less CPU
than with two such programs and the pipes between them.

Only the tables are loaded with the package; the modules that need ffmpeg are imported by name.

settings.py     what a caller may choose, and the defaults
formats.py      which containers are clips, and how results are written
facts.py        what a clip is: size, turn, colour, timing, tracks
siting.py       where the colours lie that pixels share
colour.py       between planes and upright RGB, without moving a colour
joints.py       time that begins again within a clip
reading.py      a clip's frames and packets, in the order of the file
encoders.py     which encoder, pixel format and options a film gets
tracks.py       which tracks go over into which container, and how
withheld.py     what of tags and tracks is not wanted in the result
writing.py      frames and packets into a new file, in closed segments; its verification
flow.py         threads that produce ahead and consume behind
segments.py     finished segments on disk, from which a killed run goes on
"""

from lowlight_cli.video.formats import CLIPS
from lowlight_cli.video.settings import ClipSettings, Film, Span, read_time

__all__ = ["CLIPS", "ClipSettings", "Film", "Span", "read_time"]
