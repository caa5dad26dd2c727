"""The entries of TIFF directories by their names, and how many bytes a value takes.

Source: TIFF 6.0, sections 2, 8, 14, 15 and 18; its supplements (SubIFDs, JPEGTables, BigTIFF); XMP part 3; EXIF 2.32,
section 4.6; DNG 1.7. Photoshop's resources and ICC profiles have numbers that are registered with Adobe.
"""

from enum import IntEnum


class Tag(IntEnum):
    """What an entry of a directory holds; in a struct or a dict it is its number."""

    NEW_SUBFILE_TYPE = 254
    IMAGE_WIDTH = 256
    IMAGE_LENGTH = 257
    BITS_PER_SAMPLE = 258
    COMPRESSION = 259
    PHOTOMETRIC = 262
    FILL_ORDER = 266
    DOCUMENT_NAME = 269
    IMAGE_DESCRIPTION = 270
    MAKE = 271
    MODEL = 272
    STRIP_OFFSETS = 273
    ORIENTATION = 274
    SAMPLES_PER_PIXEL = 277
    ROWS_PER_STRIP = 278
    STRIP_BYTE_COUNTS = 279
    X_RESOLUTION = 282
    Y_RESOLUTION = 283
    PLANAR_CONFIGURATION = 284
    PAGE_NAME = 285
    RESOLUTION_UNIT = 296
    SOFTWARE = 305
    DATE_TIME = 306
    ARTIST = 315
    HOST_COMPUTER = 316
    PREDICTOR = 317
    TILE_WIDTH = 322
    TILE_LENGTH = 323
    TILE_OFFSETS = 324
    TILE_BYTE_COUNTS = 325
    SUB_DIRECTORIES = 330
    EXTRA_SAMPLES = 338
    SAMPLE_FORMAT = 339
    JPEG_TABLES = 347
    THUMBNAIL_START = 513
    THUMBNAIL_LENGTH = 514
    XMP = 700
    RATING = 18246
    RATING_PERCENT = 18249
    COPYRIGHT = 33432
    IPTC = 33723
    PHOTOSHOP = 34377
    EXIF_DIRECTORY = 34665
    ICC_PROFILE = 34675
    GPS_DIRECTORY = 34853
    MAKER_NOTE = 37500
    XP_TITLE = 40091
    XP_COMMENT = 40092
    XP_AUTHOR = 40093
    XP_KEYWORDS = 40094
    XP_SUBJECT = 40095
    COLOUR_SPACE = 40961
    PIXEL_X_DIMENSION = 40962
    PIXEL_Y_DIMENSION = 40963
    INTEROP_DIRECTORY = 40965
    DNG_VERSION = 50706
    DNG_PRIVATE_DATA = 50740


BYTES_OF_KIND = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 18: 8}
"""How many bytes one value of an entry's kind takes; 16 and 18 are BigTIFF's alone."""
