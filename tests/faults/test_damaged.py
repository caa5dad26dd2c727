"""Damaged, hostile and odd pictures, a process each: read or refused in a sentence, in bounded time and memory."""

import hashlib
import io
import json
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from decoding import SECONDS, samples
from forks import Forks, forks
from PIL import Image

FORMATS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "formats"

slow = pytest.mark.slow
needs_corpus = pytest.mark.skipif(not FORMATS.is_dir(), reason="the shared corpus is not beside this checkout")

LIMITS = {"RLIMIT_AS": 6 << 30}


@pytest.fixture(scope="module")
def decoders() -> Iterator[Forks]:
    """Forks processes that know pictures and nothing of torch."""
    with forks("decoding:load") as server:
        yield server


def outcomes(
    decoders: Forks, runs: Iterable[tuple[str, tuple[str, ...], int]], *, every: int = 2000
) -> Iterator[dict[str, object]]:
    """Run children two at a time and yield what they tell; each must tell as much as it was asked."""

    def run(task: tuple[str, tuple[str, ...], int]) -> list[dict[str, object]]:
        call, arguments, expected = task
        ran = decoders.run(*arguments, call=call, limits=LIMITS, seconds=600)
        told = [json.loads(line) for line in ran.out.splitlines()]
        assert len(told) == expected, f"{call} {arguments}: ended with {ran.code} after {told[-1:]} {ran.said[-3000:]}"
        assert ran.err == b"", f"{arguments}: {ran.err.decode(errors='replace')}"
        return told

    started, done = time.monotonic(), 0
    with ThreadPoolExecutor(2) as pool:
        for told in pool.map(run, runs):
            for one in told:
                done += 1
                if done % every == 0:
                    print(f"{done} files in {time.monotonic() - started:.0f} s", flush=True)
                yield one


def check(told: Iterable[dict[str, object]]) -> Counter[object]:
    counts: Counter[object] = Counter()
    for one in told:
        counts[one["outcome"]] += 1
        assert one["outcome"] != "bug", f"{one['name']}: {one['why']}"
        assert "\n" not in str(one["why"]), one
        assert float(str(one["seconds"])) < SECONDS, one
    return counts


def digests(paths: Iterable[Path]) -> dict[Path, bytes]:
    return {path: hashlib.sha256(path.read_bytes()).digest() for path in paths}


@slow
@needs_corpus
@pytest.mark.timeout(3600)
def test_the_whole_corpus_is_read_or_refused(decoders: Forks) -> None:
    paths = sorted(path for path in FORMATS.rglob("*") if path.is_file() and path.suffix != ".tsv")
    before = digests(paths)
    counts = check(outcomes(decoders, (("decoding:tell_file", (str(path),), 1) for path in paths)))
    assert digests(paths) == before, "an input changed"
    assert counts.total() == len(paths) > 7000
    assert counts["read"] > 1500
    print(f"{counts.total()} files, {dict(counts)}")


@needs_corpus
def test_a_part_of_the_corpus_is_read_or_refused(decoders: Forks) -> None:
    paths = sorted(path for path in FORMATS.rglob("*") if path.is_file() and path.suffix != ".tsv")[::60]
    before = digests(paths)
    counts = check(outcomes(decoders, (("decoding:tell_file", (str(path),), 1) for path in paths)))
    assert digests(paths) == before, "an input changed"
    assert counts.total() > 100


@pytest.mark.parametrize("count", [200, pytest.param(20_000, marks=[slow, pytest.mark.timeout(3600)])])
def test_mutants_are_read_or_refused(count: int, decoders: Forks, tmp_path: Path) -> None:
    names = tmp_path / "names"
    originals: list[Path] = []
    if count > 1000 and FORMATS.is_dir():
        found = (path for folder in ("modes", "orientation", "bad") for path in sorted((FORMATS / folder).rglob("*")))
        originals = [path for path in found if path.is_file() and 0 < path.stat().st_size < 1 << 16]
    names.write_text("".join(f"{path}\n" for path in originals))
    step = 25
    runs = (
        ("decoding:tell_mutants", (str(names), str(first), str(first + step)), step) for first in range(0, count, step)
    )
    counts = check(outcomes(decoders, runs))
    assert counts.total() == count
    assert min(counts["read"], counts["refused"]) > count // 20
    print(f"{count} mutants of {len(originals) or len(samples())} files, {dict(counts)}")


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, colour: int = 2) -> bytes:
    header = (b"IHDR", struct.pack(">2I5B", width, height, depth, colour, 0, 0, 0))
    parts = [header, *chunks, (b"IEND", b"")]
    whole = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(whole)


def saved(name: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 24), (9, 9, 9)).save(buffer, name, **options)
    return buffer.getvalue()


def patched(data: bytes, mark: bytes, offset: int, new: bytes) -> bytes:
    place = data.index(mark) + offset
    return data[:place] + new + data[place + len(new) :]


def tiff(width: int, height: int) -> bytes:
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, 16)]
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<2H2I", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(20)


def tiff_of_one_value(entries: int, size: int) -> bytes:
    """Return a TIFF of 1x1 whose entries beyond the usual all give the same bytes for their value."""
    lines = [(256, 4, 1, 1), (257, 4, 1, 1), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    lines += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, 1, 1)]
    behind = 8 + 2 + 12 * (len(lines) + entries) + 4
    lines += [(40_000 + number, 7, size, behind) for number in range(entries)]
    directory = struct.pack("<H", len(lines)) + b"".join(struct.pack("<2H2I", *line) for line in lines)
    return b"II*\0" + struct.pack("<I", 8) + directory + bytes(4 + size)


def jpeg(width: int, height: int, scans: int, *, frame: int = 0xC2, between: bytes = b"") -> bytes:
    """Return a JPEG whose every scan is empty, and costs its decoder a pass over all pixels nevertheless."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    head = b"\xff\xd8" + segment(0xDB, bytes(1) + bytes([16]) * 64)
    head += segment(frame, struct.pack(">BHHB", 8, height, width, 3) + b"\x01\x11\0\x02\x11\0\x03\x11\0")
    head += b"".join(segment(0xC4, bytes((table, 1, 1, *bytes(14), 0, 1))) for table in (0x00, 0x10))
    scan = segment(0xDA, b"\x01\x01\0\0\0\0" if frame in (0xC2, 0xCA) else b"\x01\x01\0\0\x3f\0")
    return head + scan + between + scan * (scans - 1) + b"\xff\xd9"


def gif(frames: int) -> bytes:
    frame = b"\x21\xf9\x04\x00\x00\x00\x00\x00\x2c\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02\x44\x01\x00"
    return b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff" + frame * frames + b";"


_ZEROS = zlib.compress(bytes(200 << 20), 9)

# Small files that ask for much: each with what must not be paid.
BOMBS: dict[str, Callable[[], bytes]] = {
    "PNG of 60,000 x 60,000": lambda: png(60_000, 60_000, (b"IDAT", zlib.compress(bytes(1000)))),
    "PNG of 2^31-1 squared": lambda: png(2**31 - 1, 2**31 - 1, (b"IDAT", b"")),
    "PNG as wide as a header says": lambda: png(2**31 - 1, 1, (b"IDAT", zlib.compress(bytes(1000)))),
    "PNG of 16 bits and 20,000 x 20,000": lambda: png(20_000, 20_000, (b"IDAT", _ZEROS), depth=16, colour=6),
    "BMP": lambda: patched(saved("BMP"), b"BM", 18, struct.pack("<2i", 2**31 - 1, 2**31 - 1)),
    "GIF": lambda: patched(saved("GIF"), b"GIF8", 6, struct.pack("<2H", 65535, 65535)),
    "JPEG": lambda: patched(saved("JPEG"), b"\xff\xc0", 5, struct.pack(">2H", 65500, 65500)),
    "JPEG of 10,000 scans": lambda: jpeg(8192, 8192, 10_000),
    "JPEG of 100 scans, arithmetic": lambda: jpeg(8192, 8192, 100, frame=0xC9),
    "JPEG of hidden scans": lambda: jpeg(8192, 8192, 10_000, between=b"\xff\x01\xff\xff\xff\xfe\0\x04\xff\xd9"),
    "small JPEG of a million scans": lambda: jpeg(64, 64, 1_000_000),
    "TIFF": lambda: tiff(2**32 - 1, 2**32 - 1),
    "TIFF of one row": lambda: tiff(2**31 - 1, 1),
    "PPM": lambda: b"P6 99999 99999 255\n" + bytes(100),
    "PPM beyond all numbers": lambda: b"P6 " + b"9" * 4000 + b" 1 255\n",
    "WebP": lambda: patched(saved("WEBP", lossless=False), b"VP8 ", 14, struct.pack("<2H", 16383, 16383)),
    "AVIF": lambda: patched(saved("AVIF"), b"ispe", 8, struct.pack(">2I", 60_000, 60_000)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_at_once_and_cheaply(bomb: str, decoders: Forks, tmp_path: Path) -> None:
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[bomb]())
    # The largest of WebP, 16,383 squared, is just within what a large machine may be asked for.
    ran = decoders.run(path, "100000000", call="decoding:tell_file", seconds=60)
    told = json.loads(ran.out)
    print(f"{bomb}: {told['seconds']:.3f} s, {ran.peak_bytes / 1e6:.0f} MB: {told['why']}")
    assert told["outcome"] == "refused", told
    assert told["seconds"] < 1
    assert ran.peak_bytes < 150e6


@pytest.mark.parametrize(("side", "scans"), [(64, 100), (8192, 20)])
def test_a_jpeg_in_as_many_scans_as_any_encoder_writes_is_read(
    side: int, scans: int, decoders: Forks, tmp_path: Path
) -> None:
    path = tmp_path / "progressive.jpg"
    path.write_bytes(jpeg(side, side, scans))
    ran = decoders.run(path, "100000000", call="decoding:tell_file", seconds=60)
    assert json.loads(ran.out)["outcome"] == "read"


def test_a_value_that_a_thousand_entries_share_is_read_once(decoders: Forks, tmp_path: Path) -> None:
    path = tmp_path / "shared.tif"
    path.write_bytes(tiff_of_one_value(1000, 8 << 20))
    ran = decoders.run(path, "100000000", call="decoding:tell_file", seconds=60)
    told = json.loads(ran.out)
    assert told["outcome"] == "read", told
    assert told["seconds"] < 1
    assert ran.peak_bytes < 150e6
