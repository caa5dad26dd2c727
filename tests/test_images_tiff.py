"""TIFFs as cameras, scanners and other programs write them: turned, in pages, and with all that they say."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin
from test_images import CITY, KEYWORD, iptc_segment

from lowlight_cli.errors import InputError, OutputError
from lowlight_cli.images import Picture, probe, read_animation, read_frames, read_picture, write_frames, write_picture
from lowlight_cli.images.directory import Entry, TiffBlock
from lowlight_cli.images.gather import Directories
from lowlight_cli.images.sniff import kind_of
from lowlight_cli.images.tiff import TiffWriter

ASCII, SHORT, LONG, UNDEFINED, IFD, LONG8, IFD8 = 2, 3, 4, 7, 13, 16, 18
Entries = dict[int, "tuple[int, bytes] | Entries"]


def packed(entries: Entries, at: int, order: str, *, next_at: int = 0, big: bool = False, pointer: int = LONG) -> bytes:
    """Return a directory that begins `at` this place, with its values and the directories below it behind it."""
    word, head = ("Q", "Q") if big else ("I", "H")
    sizes = {ASCII: 1, SHORT: 2, LONG: 4, UNDEFINED: 1, IFD: 4, LONG8: 8, IFD8: 8}
    room = struct.calcsize(word)
    lines, behind = b"", b""
    end = at + struct.calcsize(head) + (4 + 2 * room) * len(entries) + room
    for tag, value in sorted(entries.items()):
        place = end + len(behind)
        if isinstance(value, dict):
            kind, content = pointer, struct.pack(f"{order}{'Q' if sizes[pointer] == 8 else 'I'}", place)
            behind += packed(value, place, order, big=big, pointer=pointer)
        else:
            kind, content = value
        field = content.ljust(room, b"\0")
        if len(content) > room:
            field = struct.pack(f"{order}{word}", place)
            behind += content + bytes(len(content) % 2)
        lines += struct.pack(f"{order}2H{word}", tag, kind, len(content) // sizes[kind]) + field
    return struct.pack(f"{order}{head}", len(entries)) + lines + struct.pack(f"{order}{word}", next_at) + behind


def told(order: str) -> Entries:
    return {
        315: (ASCII, "Jürgen Müller\0".encode()),
        34665: {
            0x9003: (ASCII, b"2024:11:05 21:30:00\0"),
            0x927C: (UNDEFINED, b"maker's note"),
            0xA005: {1: (ASCII, b"R98\0")},
            0xA002: (LONG8, struct.pack(f"{order}Q", 24)),
            0xA003: (LONG8, struct.pack(f"{order}Q", 1 << 32)),
        },
        34853: {1: (ASCII, b"N\0")},
        700: (UNDEFINED, b"xmp"),
        256: (SHORT, struct.pack(f"{order}H", 9)),
    }


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("big", "pointer"), [(False, LONG), (False, IFD), (True, LONG), (True, IFD), (True, LONG8), (True, IFD8)]
)
@pytest.mark.parametrize("page", [0, 1])
def test_what_describes_a_picture_is_gathered_byte_for_byte(order: str, big: bool, pointer: int, page: int) -> None:
    start, word = (16, "Q") if big else (8, "I")
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}H", 43 if big else 42)
    head += struct.pack(f"{order}HHQ", 8, 0, start) if big else struct.pack(f"{order}{word}", start)
    first = packed(told(order), start, order, big=big, pointer=pointer)
    second = start + len(first)
    if page:
        first = packed({256: (SHORT, b"\0\x09")}, start, order, next_at=second, big=big).ljust(len(first), b"\0")
    content = head + first + packed(told(order), second, order, big=big, pointer=pointer)
    found = Directories(io.BytesIO(content), second if page else None)
    assert found.value(700) == b"xmp"
    block = found.exif()
    assert block is not None
    exif = Image.Exif()
    exif.load(block)
    assert "Jürgen Müller".encode() in block
    assert exif.get_ifd(ExifTags.IFD.Exif)[0x9003] == "2024:11:05 21:30:00"
    assert exif.get_ifd(ExifTags.IFD.Exif)[0x927C] == b"maker's note"
    assert exif.get_ifd(ExifTags.IFD.Interop)[1] == "R98"
    assert exif.get_ifd(ExifTags.IFD.GPSInfo)[1] == "N"
    assert exif.get_ifd(ExifTags.IFD.Exif)[0xA002] == 24  # which is 64 bits wide in the file
    assert 0xA003 not in exif.get_ifd(ExifTags.IFD.Exif)  # and too large for EXIF
    assert 256 not in exif
    assert found.has_maker_note()
    assert not found.is_damaged()
    assert b"maker" not in (found.exif(without=(0x927C,)) or b"maker")


def test_damage_costs_what_is_damaged() -> None:
    content = b"II*\0\x08\0\0\0" + packed(told("<"), 8, "<")
    for length in range(8, len(content)):
        try:
            Directories(io.BytesIO(content[:length])).exif()
        except ValueError:
            continue


def tiff_of_a_camera(pointer: int = LONG, *, places: int = 0) -> bytes:
    """Return a BigTIFF of 4x2 pixels whose EXIF directory is pointed to so; `places` makes the pointer wrong."""
    pixels = {
        256: (SHORT, b"\x04\0"), 257: (SHORT, b"\x02\0"), 258: (SHORT, b"\x08\0"), 259: (SHORT, b"\x01\0"),
        262: (SHORT, b"\x01\0"), 273: (LONG, struct.pack("<I", 16)), 277: (SHORT, b"\x01\0"),
        278: (SHORT, b"\x02\0"), 279: (LONG, struct.pack("<I", 8)),
    }  # fmt: skip
    entries = {**told("<"), **pixels}
    if places:
        entries[34665] = (pointer, struct.pack("<Q", places))
    return b"II+\0\x08\0\0\0" + struct.pack("<Q", 24) + bytes(8) + packed(entries, 24, "<", big=True, pointer=pointer)


@pytest.mark.parametrize("pointer", [LONG8, IFD8])
def test_a_big_tiff_keeps_its_exif_data_but_for_the_makers_notes(pointer: int) -> None:
    picture = read_picture(tiff_of_a_camera(pointer))
    assert (picture.width, picture.height) == (4, 2)
    assert b"2024:11:05 21:30:00" in (picture.tags.exif or b"")
    assert b"maker's note" not in (picture.tags.exif or b"")
    assert [warning for warning in picture.warnings if "maker's notes" in warning]


def test_exif_data_that_a_tiff_points_to_in_vain_are_said_to_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff_of_a_camera(LONG8, places=1 << 20))
    picture = read_picture(path)
    assert picture.warnings == ("its EXIF data is damaged and was left out",)
    assert "Jürgen Müller".encode() in (picture.tags.exif or b"")
    for beyond_all_files in (1 << 45, 1 << 62, (1 << 64) - 1):
        path.write_bytes(tiff_of_a_camera(LONG8, places=beyond_all_files))
        with path.open("rb") as file:
            assert Directories(file).is_damaged()
        assert Directories(io.BytesIO(path.read_bytes())).is_damaged()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "P", "CMYK"])
def test_a_turned_uncompressed_tiff_is_upright_from_a_path_and_from_bytes(
    mode: str, orientation: int, tmp_path: Path
) -> None:
    levels = np.random.default_rng(0).integers(0, 200, (6, 10, 3), dtype=np.uint8)
    image = Image.fromarray(levels)
    image = Image.fromarray(levels[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    path = tmp_path / "a.tif"
    image.save(path, tiffinfo={274: orientation})
    plain = tmp_path / "b.tif"
    image.save(plain)
    wanted = read_picture(plain).pixels
    if orientation in (2, 4, 5, 7):
        wanted = wanted[:, ::-1]
    wanted = np.rot90(wanted, {1: 0, 2: 0, 3: 2, 4: 2, 5: 1, 6: -1, 7: -1, 8: 1}[orientation])
    for source in (path, path.read_bytes()):
        picture = read_picture(source)
        assert np.array_equal(picture.pixels, wanted)
        assert (probe(source).height, probe(source).width) == wanted.shape[:2]


def save_pages(path: Path, pages: list[tuple[Image.Image, dict[int, object], dict[str, object]]]) -> None:
    first, *others = pages
    with TiffImagePlugin.AppendingTiffWriter(str(path), new=True) as file:
        for image, tags, extra in (first, *others):
            image.save(file, "TIFF", tiffinfo=tags, **extra)
            file.newFrame()


def test_small_copies_between_pages_are_no_pages_and_cost_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    full = [Image.new("RGB", (24, 16), (level, 0, 0)) for level in (30, 90)]
    small = Image.new("RGB", (6, 4))
    save_pages(path, [(small, {254: 1}, {}), (full[0], {}, {}), (small, {254: 1}, {}), (full[1], {}, {})])
    assert probe(path).frames == 2
    pages = [frame.picture for frame in read_frames(read_animation(path))]
    assert [(page.width, int(page.pixels[0, 0, 0])) for page in pages] == [(24, 30), (24, 90)]
    assert read_picture(path).width == 24


def test_a_page_has_its_own_profile_and_resolution(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    path = tmp_path / "a.tif"
    image = Image.new("RGB", (8, 8))
    save_pages(path, [(image, {}, {"icc_profile": profile, "dpi": (254, 254)}), (image, {}, {})])
    first, second = (frame.picture for frame in read_frames(read_animation(path)))
    assert first.icc is not None
    assert first.tags.dpi == (254, 254)
    assert second.icc is None
    assert second.tags.dpi is None


@pytest.mark.parametrize("kind", [1, UNDEFINED])
def test_iptc_of_its_own_tag_joins_photoshops_other_resources(kind: int, tmp_path: Path) -> None:
    url = b"8BIM\x04\x0b\0\0\0\0\0\x0chttp://x.org"
    for resources, kept in ((url, url + iptc_segment(KEYWORD + CITY)), (iptc_segment(KEYWORD), iptc_segment(KEYWORD))):
        tags = TiffImagePlugin.ImageFileDirectory_v2()
        tags[33723], tags[34377] = KEYWORD + CITY, resources
        tags.tagtype[33723], tags.tagtype[34377] = kind, kind
        Image.new("RGB", (8, 8)).save(tmp_path / "a.tif", tiffinfo=tags)
        assert read_picture(tmp_path / "a.tif").tags.iptc == kept


def test_names_keep_their_letters_from_tiff_to_all_formats(tmp_path: Path) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33432] = "© Jürgen Müller".encode()
    tags.tagtype[33432] = ASCII
    Image.new("RGB", (8, 8)).save(tmp_path / "a.tif", tiffinfo=tags)
    for name in ("b.tif", "b.jpg", "b.png", "b.webp"):
        write_picture(read_picture(tmp_path / "a.tif"), tmp_path / name)
        assert "© Jürgen Müller".encode() in (read_picture(tmp_path / name).tags.exif or b"")


def test_pages_come_back_as_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    save_pages(path, [(Image.new("L", (9, 5), level), {}, {}) for level in (10, 20, 30)])
    animation = read_animation(path)
    write_frames(read_frames(animation), tmp_path / "b.tif", animation=animation)
    pages = [frame.picture for frame in read_frames(read_animation(tmp_path / "b.tif"))]
    assert [int(page.pixels[0, 0, 0]) for page in pages] == [10, 20, 30]
    assert all(isinstance(page, Picture) for page in pages)


class AlmostFull(io.BytesIO):
    """A file that has 2 kB of a TIFF's 4 GB left."""

    def tell(self) -> int:
        return super().tell() + (1 << 32) - 2048


def test_a_page_beyond_four_gigabytes_is_refused_in_a_sentence() -> None:
    writer = TiffWriter(AlmostFull())
    writer.add_page((16, 16, 1), [np.zeros((16, 16, 1), np.uint8)], depth=8)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 1), dtype=np.uint8)
    with pytest.raises(OutputError, match=r"at most 4 GB.*--format png"):
        writer.add_page((64, 64, 1), [noise], depth=8)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "kind"), [(16, 2), (16, 3), (32, 3), (64, 3)])
def test_colour_whose_samples_are_no_plain_numbers_is_refused_as_grey_is(order: str, bits: int, kind: int) -> None:
    def shorts(*values: int) -> tuple[int, bytes]:
        return SHORT, struct.pack(f"{order}{len(values)}H", *values)

    pixels = 2 * 2 * 3 * bits // 8
    facts: Entries = {
        256: shorts(2), 257: shorts(2), 258: shorts(bits, bits, bits), 259: shorts(1), 262: shorts(2), 273: shorts(8),
        277: shorts(3), 278: shorts(2), 279: shorts(pixels), 339: shorts(kind, kind, kind),
    }  # fmt: skip
    start = 8 + pixels
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    with pytest.raises(InputError, match=r"signed or floating-point numbers, .*; convert it to 16 bits first"):
        read_picture(head + bytes(pixels) + packed(facts, start, order))


@pytest.mark.parametrize("apart", [0, 12], ids=["one", "hundreds"])
def test_sub_directories_without_end_are_not_looked_through(apart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    count, many = 1000, 4000
    behind = 8 + 2 + 12 + 4 + 4 * count
    places = struct.pack(f"<{count}I", *(behind + apart * number for number in range(count)))
    head = b"II*\0\x08\0\0\0" + packed({330: (LONG, places)}, 8, "<")
    content = (
        head + struct.pack("<H", many) + (struct.pack("<HHII", 258, 0, 1, 0)[:10] + struct.pack("<H", many)) * many
    )
    looked_at = 0
    is_sound = Entry.is_sound

    def counted(entry: Entry) -> bool:
        nonlocal looked_at
        looked_at += 1
        return is_sound(entry)

    monkeypatch.setattr(Entry, "is_sound", counted)
    assert kind_of(content.ljust(1 << 17, b"\0")) == "TIFF"
    assert 0 < looked_at < 13 * many


def pages_of_one_pixel(count: int, *, colours: int = 1, depth: int = 8, planar: int = 1) -> bytes:
    """Return a TIFF of many pages, each of them the same pixels: those in the header."""
    content, size = b"II*\0" + struct.pack("<I", 24) + bytes(16), 0
    for number in range(count):
        entries: Entries = {
            256: (SHORT, b"\x01\0"), 257: (SHORT, b"\x01\0"), 258: (SHORT, struct.pack("<H", depth) * colours),
            259: (SHORT, b"\x01\0"), 262: (SHORT, b"\x01\0" if colours == 1 else b"\x02\0"),
            273: (LONG, struct.pack("<I", 8) * (colours if planar == 2 else 1)),
            277: (SHORT, struct.pack("<H", colours)), 278: (SHORT, b"\x01\0"),
            279: (LONG, struct.pack("<I", 8) * (colours if planar == 2 else 1)), 284: (SHORT, bytes((planar, 0))),
        }  # fmt: skip
        size = size or len(packed(entries, 0, "<"))
        is_last = number == count - 1
        content += packed(entries, len(content), "<", next_at=0 if is_last else len(content) + size)
    return content


@pytest.mark.parametrize(("colours", "depth", "planar"), [(1, 8, 1), (1, 16, 1), (3, 8, 1), (3, 16, 1), (3, 16, 2)])
def test_a_page_costs_the_same_among_many(
    colours: int, depth: int, planar: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def counted(whole: type, name: str) -> None:
        does = getattr(whole, name)

        def once_more(*arguments: object) -> object:
            nonlocal read
            read += 1
            return does(*arguments)

        monkeypatch.setattr(whole, name, once_more)

    counted(TiffImagePlugin.ImageFileDirectory_v2, "load")
    counted(Directories, "_count")
    counted(TiffBlock, "directory")
    costs = []
    for pages in (20, 120):
        content, read = pages_of_one_pixel(pages, colours=colours, depth=depth, planar=planar), 0
        assert probe(content).frames == pages
        frames = list(read_frames(read_animation(content)))
        assert {frame.picture.pixels.shape for frame in frames} == {(1, 1, colours)}
        assert len(frames) == pages
        costs.append(read / pages)
    assert costs[1] < 1.2 * costs[0]


def test_pages_by_the_ten_thousand_are_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match="more than 4096 pages"):
        probe(pages_of_one_pixel(4097))


def test_pages_that_share_their_entries_are_refused_before_all_are_read() -> None:
    pages, entries = 1000, 3000
    values = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    # Behind every line's value stands what a directory of so many entries begins with.
    lines = bytearray(b"".join(struct.pack("<HHIHH", tag, SHORT, 1, values[tag], entries) for tag in values))
    lines = lines * ((pages + entries) // len(values) + 1)
    for page in range(pages - 1):
        struct.pack_into("<I", lines, 12 * (page + entries), 16 + 12 * (page + 1))
    content = b"II*\0" + struct.pack("<I", 16) + bytes(8) + struct.pack("<H", entries) + lines
    with pytest.raises(InputError, match="one over another"):
        probe(content)
