"""Pictures: from a file to what a network sees, and back into the same kind of file.

    picture = read_picture(path)              its own integers, profile, alpha and tags, upright
    canvas = Canvas(picture)
    canvas.add(network(picture.srgb(rows)))   band by band, from top to bottom
    write_picture(canvas.picture(), target)   complete or not at all

`probe` reads a header; `read_animation`, `read_frames` and `write_frames` do the same for several frames;
`pillow_image` is for notebooks. No torch here: numpy arrays in and out. The rooms:

- `decode` is the only way in: it judges the file, keeps to the pixels that `budget` allows, and makes every failure
  InputError.
- `unpack` makes integers of every mode and depth, after `layout` has told how they lie in the file; `planar` does so
  where a TIFF's channels lie apart, and `libtiff` keeps that library from writing to stderr;
  `harvest` gathers the metadata.
- `profiles` decides what becomes of the colours, `gamma` makes profiles of what PNG and EXIF say in their own ways;
  `colour` has the mathematics.
- `picture` holds the result: `Picture`, and `Canvas` for the way back; `hidden` fills in what alpha hides.
- `thumbnail` makes pictures small to look at.
- `metadata` keeps EXIF true, `xmp` XMP, `photoshop` IPTC; `directory` edits TIFF structures in place, `gather` takes
  what describes out of a TIFF's; `tiff_tags` names their entries.
- `fit` leaves of a picture what a format can hold; `encode` and, for several frames, `animate` are the ways out; `png`,
  `tiff`, `ppm` and `bmp` write what Pillow cannot.
- `formats` says what each format can hold; `sniff` knows files by their first bytes; `extras` reads HEIC and raw
  photos.
"""

from lowlight_cli.images.animate import write_frames
from lowlight_cli.images.budget import default_pixel_budget
from lowlight_cli.images.decode import (
    Animation,
    Frame,
    PictureFacts,
    probe,
    read_animation,
    read_frames,
    read_picture,
)
from lowlight_cli.images.encode import pillow_image, write_picture
from lowlight_cli.images.formats import FORMATS, Format, output_format
from lowlight_cli.images.picture import Canvas, Picture, Pixels, stops_between
from lowlight_cli.images.thumbnail import Thumbnail, shrunk, thumbnail_of

__all__ = [
    "FORMATS",
    "Animation",
    "Canvas",
    "Format",
    "Frame",
    "Picture",
    "PictureFacts",
    "Pixels",
    "Thumbnail",
    "default_pixel_budget",
    "output_format",
    "pillow_image",
    "probe",
    "read_animation",
    "read_frames",
    "read_picture",
    "shrunk",
    "stops_between",
    "thumbnail_of",
    "write_frames",
    "write_picture",
]
