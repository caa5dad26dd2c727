"""`lowlight video` keeps what clips are made of: frames, times, sound, turn, colours, tags; and says what it cannot."""

import contextlib
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from av import Packet
from clipmaking import Seen, make_clip, pattern, see
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image
from threadcount import torch_threads
from torch import Tensor
from typer.testing import CliRunner, Result

from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.cli import app
from lowlight_cli.cli.video import _drawing
from lowlight_cli.clip import ClipProgress, ClipSettings
from lowlight_cli.clip.contact import ContactSheet
from lowlight_cli.clip.frames import Frames, Made, Ready, compute_alone, floats, pixels_of
from lowlight_cli.clip.work import _fingerprint
from lowlight_cli.console import Show
from lowlight_cli.enhancer import Enhancer, load_enhancer
from lowlight_cli.errors import NumericsError, SettingsError
from lowlight_cli.settings import Compute, Tiling
from lowlight_cli.video import read_time
from lowlight_cli.video.facts import Turn, probe_clip, turn_of_matrix
from lowlight_cli.video.flow import Prefetcher
from lowlight_cli.video.reading import ClipFrame, ClipReader
from lowlight_cli.video.segments import Segment, SegmentStore, remove_segments
from lowlight_cli.weights_file import write_weights

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "video"
QUICK = ("--preset", "ultrafast", "--crf", "4")


def lowlight(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def identity(*arguments: str | Path) -> Result:
    return lowlight("video", *arguments, "--model", "identity", "--device", "cpu")


def done(source: Path, *arguments: str | Path, suffix: str | None = None) -> Seen:
    """Run with the identity, and look at what came out."""
    target = source.with_name(f"{source.stem}_out{suffix or source.suffix}")
    ran = identity(source, "-o", target, *arguments)
    assert ran.exit_code == 0, ran.output
    return see(target)


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


def test_frames_times_and_sound_are_kept(tmp_path):
    source = make_clip(tmp_path / "a.mp4")
    before, after = see(source), done(source, *QUICK)
    assert after.times == before.times
    assert after.packets == before.packets, "sound is copied to the bit, at its own times"
    assert (after.size, after.rate, after.codec) == ((64, 48), 25, "h264")
    for one, other in zip(before.pixels, after.pixels, strict=True):
        assert likeness(one, other) < 1.5


@pytest.mark.parametrize("rate", ["24000/1001", "25", "30000/1001", "60000/1001"])
@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_exact_rates_do_not_drift_in_two_hours(tmp_path, rate, suffix):
    """Frames far apart stand for the two hours between them: times are kept as they are, not counted up."""
    rate = Fraction(rate)
    last = int(2 * 3600 * rate)
    times = [number * rate.denominator for number in (0, 1, 2, last // 2, last - 1, last)]
    base = Fraction(1, rate.numerator)
    source = make_clip(tmp_path / f"a{suffix}", times=times, time_base=base, rate=rate, size=(16, 16))
    after = done(source, *QUICK)
    assert after.times == [Fraction(time) * base for time in times]


def test_a_variable_rate_stays_in_step(tmp_path):
    times = [0, 40, 55, 90, 91, 300, 340, 420, 421, 422]
    source = make_clip(tmp_path / "a.mp4", times=times, time_base=Fraction(1, 600))
    before, after = see(source), done(source)
    assert after.times == before.times
    assert after.packets == before.packets
    assert abs(after.seconds - before.seconds) <= Fraction(40, 600)


def test_times_survive_the_seam_of_two_segments(tmp_path):
    """Encoders count decoding times back from a segment's beginning; a long gap after it must not upset them."""
    gaps = np.random.default_rng(2).choice([1, 2, 5000], size=130)
    times = [0, *(int(time) for time in np.cumsum(gaps))]
    source = make_clip(tmp_path / "a.mp4", times=times, time_base=Fraction(1, 90000), size=(16, 16), sound=None)
    assert done(source, "--preset", "medium").times == see(source).times


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("mirrored", [False, True])
def test_turned_and_mirrored_films_come_out_upright(tmp_path, quarters, mirrored):
    source = make_clip(tmp_path / "a.mp4", frames=2, turn=(90 * quarters, mirrored), sound=None, size=(64, 40))
    stored = see(source).pixels[0]
    after = done(source, *QUICK)
    # The writer's rotation is to the left, and its mirroring comes after it.
    upright = np.rot90(stored, quarters)
    upright = upright[:, ::-1] if mirrored else upright
    assert after.size == (upright.shape[1], upright.shape[0])
    assert likeness(upright, after.pixels[0]) < 2


def test_a_matrix_that_is_no_right_angle_counts_as_upright():
    assert turn_of_matrix([3 << 15, 1 << 15, 0, -(1 << 15), 3 << 15, 0, 0, 0, 1 << 30]) == Turn()
    assert turn_of_matrix([0] * 9) == Turn()


@pytest.mark.parametrize(("orientation", "quarters"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_photos_in_a_row_with_exif_of_their_own_are_a_film(tmp_path, orientation, quarters):
    exif, photo = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(pattern(0, width=64, height=48)).save(photo, "JPEG", exif=exif, quality=98)
    source = tmp_path / "a.avi"
    with av.open(str(source), "w") as output:
        film = output.add_stream("mjpeg", rate=25)
        film.width, film.height, film.pix_fmt = 64, 48, "yuvj420p"
        for time in range(3):
            packet = Packet(photo.getvalue())
            packet.pts = packet.dts = time
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), film, True
            output.mux(packet)
    after = done(source, *QUICK, suffix=".mkv")
    assert len(after.pixels) == 3
    assert likeness(np.rot90(pattern(0, width=64, height=48), quarters), after.pixels[0]) < 5


@pytest.mark.parametrize("colour", [(1, 1, 1, 1), (1, 1, 1, 2), (5, 5, 6, 1), (9, 9, 14, 1), (2, 2, 2, 0)])
def test_colour_tags_are_kept_and_colours_do_not_move(tmp_path, colour):
    source = make_clip(tmp_path / "a.mp4", frames=3, colour=colour, sound=None)
    before, after = see(source), done(source, *QUICK)
    assert after.colour == before.colour
    assert likeness(before.pixels[1], after.pixels[1]) < 1.5
    assert abs(before.pixels[1].mean(axis=(0, 1)) - after.pixels[1].mean(axis=(0, 1))).max() < 0.8


@pytest.mark.parametrize("pixel_format", ["yuv420p10le", "yuv422p", "yuv444p", "yuv444p10le"])
def test_depth_and_chroma_are_kept(tmp_path, pixel_format):
    source = make_clip(tmp_path / "a.mp4", frames=3, pixel_format=pixel_format, sound=None)
    before, after = see(source), done(source, *QUICK)
    assert after.pixel_format == pixel_format
    assert likeness(before.pixels[1], after.pixels[1]) < 1.5


def test_ten_bits_are_more_than_eight(tmp_path):
    """A slope of a few steps in ten bits keeps steps between those of eight."""
    slope = np.broadcast_to(np.linspace(8000, 10000, 64)[None, :, None], (48, 64, 3)).astype(np.uint16)
    source = make_clip(
        tmp_path / "a.mp4",
        frames=2,
        pixel_format="yuv444p10le",
        sound=None,
        pictures=[slope, slope],
        options={"qp": "0"},
    )
    target = tmp_path / "b.mp4"
    assert identity(source, "-o", target, "--crf", "0", "--preset", "ultrafast").exit_code == 0
    with av.open(str(target)) as clip:
        levels = next(clip.decode(video=0)).to_ndarray(format="gray16le")
    assert len(np.unique(levels[10])) > 12


def test_hlg_is_kept_and_pq_is_refused_with_a_sentence(tmp_path):
    hlg = make_clip(tmp_path / "hlg.mp4", frames=2, pixel_format="yuv420p10le", colour=(9, 9, 18, 1), sound=None)
    assert done(hlg).colour == (9, 9, 18, 1)
    pq = make_clip(tmp_path / "pq.mp4", frames=2, pixel_format="yuv420p10le", colour=(9, 9, 16, 1), sound=None)
    ran = identity(pq)
    assert ran.exit_code == 1
    assert "HDR" in ran.stderr
    assert not (tmp_path / "pq_lowlight.mp4").exists()


@pytest.mark.parametrize(("size", "suffix"), [((33, 27), ".mkv"), ((33, 27), ".mp4"), ((2, 2), ".mp4")])
def test_odd_and_tiny_sizes_are_kept(tmp_path, size, suffix):
    source = make_clip(tmp_path / f"a{suffix}", frames=3, size=size, pixel_format="yuv444p")
    assert done(source).size == size


def test_an_odd_size_in_vp9_stays_as_it_is(tmp_path):
    source = make_clip(tmp_path / "a.webm", frames=3, size=(33, 27), codec="libvpx-vp9", sound=None)
    after = done(source)
    assert (after.size, after.codec, after.pixel_format) == ((33, 27), "vp9", "yuv420p")


def test_pixels_that_are_no_squares_stay_so_and_turn_with_the_film(tmp_path):
    assert done(make_clip(tmp_path / "a.mp4", aspect=Fraction(2, 3))).aspect == Fraction(2, 3)
    turned = make_clip(tmp_path / "b.mp4", aspect=Fraction(2, 3), turn=(90, False))
    assert done(turned).aspect == Fraction(3, 2)


def with_everything(path: Path) -> Path:
    """A Matroska clip with two sound tracks, subtitles, chapters, an attachment and tags."""
    plain = make_clip(path.with_name("plain.mkv"), frames=50, tags={"title": "Night", "location": "+48.85+002.35/"})
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        output.metadata.update(source.metadata)
        output.set_chapters([
            {"id": 1, "start": 0, "end": 800, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}},
            {"id": 2, "start": 800, "end": 2000, "time_base": Fraction(1, 1000), "metadata": {"title": "two"}},
        ])  # fmt: skip
        tracks = [output.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        again = output.add_stream_from_template(source.streams.audio[0], opaque=True)
        again.metadata["language"] = "deu"
        words = output.add_mux_stream("subrip")
        output.add_attachment("note.txt", "text/plain", b"a note")
        for packet in source.demux():
            if not packet.size:
                continue
            copy = av.Packet(bytes(packet))
            copy.pts, copy.dts, copy.time_base, copy.stream = packet.pts, packet.dts, packet.time_base, again
            packet.stream = tracks[packet.stream.index]
            output.mux(packet)
            if packet.stream is tracks[1]:
                output.mux(copy)
        line = av.Packet(b"hello")
        line.pts = line.dts = 500
        line.duration, line.time_base, line.stream = 700, Fraction(1, 1000), words
        output.mux(line)
    return path


def test_all_tracks_chapters_attachments_and_tags_go_over(tmp_path):
    source = with_everything(tmp_path / "all.mkv")
    before, after = see(source), done(source, *QUICK)
    assert after.kinds == before.kinds == ["video", "audio", "audio", "subtitle", "attachment"]
    assert after.packets == before.packets
    assert after.chapters == before.chapters
    assert after.tags["title"] == "Night"
    with av.open(str(tmp_path / "all_out.mkv")) as clip:
        assert clip.streams[2].metadata["language"] == "deu"
        assert clip.streams[4].data == b"a note"


def test_metadata_is_stripped_or_kept_without_places_on_request(tmp_path):
    source = with_everything(tmp_path / "all.mkv")
    assert "location" in {name.lower() for name in see(source).tags}
    without = done(source, "--metadata", "no-gps").tags
    assert "location" not in {name.lower() for name in without}
    assert without["title"] == "Night"
    (tmp_path / "all_out.mkv").unlink()
    assert "title" not in {name.lower() for name in done(source, "--metadata", "strip").tags}


def photographed(path: Path, *, content: bytes | None = None) -> Path:
    """A clip as a drone makes it: places in tags of film and chapter, in a text track, an attachment and its cover."""
    exif, cover = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Model] = "Drone"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (48.0, 51.0, 29.5)
    Image.new("RGB", (32, 24), "navy").save(cover, "JPEG", exif=exif)
    places = {"LATITUDE": "48.8581", "City": "Paris", "country_code": "FR", "GPSPosition": "there"}
    plain = make_clip(path.with_name("plain.mkv"), frames=25, sound=None)
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        output.metadata.update({"title": "Night", "velocity": "3"} | places)
        chapter = {"title": "one", "LOCATION": "+48.8581+002.2945/"}
        output.set_chapters([{"id": 1, "start": 0, "end": 900, "time_base": Fraction(1, 1000), "metadata": chapter}])
        film = output.add_stream_from_template(source.streams.video[0], opaque=True)
        telling, words = (output.add_mux_stream("subrip" if path.suffix == ".mkv" else "mov_text") for _ in range(2))
        picture = None
        if path.suffix == ".mkv":
            output.add_attachment("cover.jpg", "image/jpeg", content or cover.getvalue())
            output.add_attachment("log.srt", "text/plain", b"GPS (2.2945, 48.8581, 19)")
            output.add_attachment("note.txt", "text/plain", b"a note")
            output.add_attachment("a.ttf", "application/x-truetype-font", b"a font")
        else:
            picture = output.add_mux_stream("mjpeg", width=32, height=24)
            picture.disposition = av.stream.Disposition.attached_pic
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = film
                output.mux(packet)
        said = {telling: b"F/2.8, GPS (2.2945, 48.8581, 19)", words: b"The GPS is at home, 1.5 m deep"}
        for stream, text in said.items():
            line = Packet(text if path.suffix == ".mkv" else len(text).to_bytes(2, "big") + text)
            line.pts = line.dts = 100
            line.duration, line.time_base, line.stream = 700, Fraction(1, 1000), stream
            output.mux(line)
        if picture is not None:
            packet = Packet(content or cover.getvalue())
            packet.pts = packet.dts = 0
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 1000), picture, True
            output.mux(packet)
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("metadata", ["keep", "no-gps", "strip"])
def test_places_are_held_back_wherever_they_lie_in_a_clip(tmp_path, suffix, metadata):
    source, target = photographed(tmp_path / f"a{suffix}"), tmp_path / f"b{suffix}"
    ran = identity(source, "-o", target, "--metadata", metadata, *QUICK)
    assert ran.exit_code == 0, ran.output
    content, seen = target.read_bytes(), see(target)
    with av.open(str(target)) as clip:
        tags = {name.lower() for name in clip.metadata}
        chapters = [{name.lower() for name in chapter["metadata"]} for chapter in clip.chapters()]
        (cover,) = (stream for stream in clip.streams.video if stream.disposition & av.stream.Disposition.attached_pic)
        picture = next(bytes(packet) for packet in clip.demux(cover) if packet.size)
        files = [stream.data for stream in clip.streams.attachments]
    with Image.open(io.BytesIO(picture)) as image:
        assert image.size == (32, 24)
        model, place = image.getexif().get(ExifTags.Base.Model), image.getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert b"The GPS is at home" in content
    assert seen.kinds.count("subtitle") == (2 if metadata == "keep" else 1)
    assert (b"48.8581" in content) == bool(place) == (metadata == "keep")
    assert model == (None if metadata == "strip" else "Drone")
    assert ("it tells places" in ran.stderr) == (metadata != "keep")
    if suffix == ".mkv":
        places, others = {"latitude", "city", "country_code", "gpsposition"}, {"title", "velocity"}
        wanted = {"keep": places | others, "no-gps": others, "strip": set()}[metadata]
        assert tags & (places | others) == wanted
        assert chapters == {"keep": [{"title", "location"}], "no-gps": [{"title"}], "strip": []}[metadata]
        kept = {"keep": [b"GPS (2.2945, 48.8581, 19)", b"a note"], "no-gps": [b"a note"], "strip": []}[metadata]
        assert files == [*kept, b"a font"]
        assert ("of attachments only fonts go over" in ran.stderr) == (metadata == "strip")


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_cover_picture_that_cannot_be_read_is_left_out_where_metadata_matters(tmp_path, suffix):
    source, target = photographed(tmp_path / f"a{suffix}", content=b"\xff\xd8\xff no picture"), tmp_path / f"b{suffix}"
    ran = identity(source, "-o", target, "--metadata", "no-gps", *QUICK)
    assert ran.exit_code == 0, ran.output
    assert "what it says of itself cannot be taken out" in ran.stderr
    assert see(target).kinds.count("video") == 1


@pytest.mark.parametrize(
    ("text", "tells"),
    [
        ("[latitude: 48.8581] [longtitude: 2.2945]", True),
        ("HOME(149.0251,-20.2532) 2024.01.02", True),
        ("$GPRMC,081836,A,3751.65,S,14507.36,E", True),
        ("gps: N48.8581", True),
        ("We are home. 15 men with GPS", False),
        ("gps: 48,8581", True),
        ("How long? 12,500 feet at this latitude", False),
    ],
)
def test_subtitles_are_told_from_what_tells_places(tmp_path, text, tells):
    source = make_clip(tmp_path / "film.mkv", frames=3, sound=None)
    with av.open(str(source)) as given, av.open(str(tmp_path / "a.mkv"), "w") as output:
        film, words = output.add_stream_from_template(given.streams.video[0]), output.add_mux_stream("subrip")
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = film
                output.mux(packet)
        line = Packet(text.encode())
        line.pts = line.dts = 0
        line.duration, line.time_base, line.stream = 100, Fraction(1, 1000), words
        output.mux(line)
    assert ("subtitle" in done(tmp_path / "a.mkv", "--metadata", "no-gps").kinds) == (not tells)


def test_what_a_container_cannot_hold_is_said(tmp_path):
    source = with_everything(tmp_path / "all.mkv")
    ran = identity(source, "-o", tmp_path / "b.mp4", "--json")
    assert ran.exit_code == 0, ran.output
    (told,) = map(json.loads, ran.stdout.splitlines())
    assert any("attachment" in warning and "left out" in warning for warning in told["warnings"])
    assert "left out" in ran.stderr
    assert see(tmp_path / "b.mp4").kinds[:3] == ["video", "audio", "audio"]


def test_a_cover_picture_is_not_the_film(tmp_path):
    film = make_clip(tmp_path / "film.mp4", frames=5)
    with av.open(str(film)) as source, av.open(str(tmp_path / "a.mp4"), "w") as output:
        cover = output.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 128, 96, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        tracks = [output.add_stream_from_template(stream, opaque=True) for stream in source.streams]
        picture = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 200, np.uint8)).reformat(format="yuvj420p")
        output.mux([*cover.encode(picture), *cover.encode(None)])
        for packet in source.demux():
            if packet.size:
                packet.stream = tracks[packet.stream.index]
                output.mux(packet)
    after = done(tmp_path / "a.mp4")
    assert (after.size, len(after.pixels)) == ((64, 48), 5)
    assert after.kinds.count("video") == 2


@pytest.mark.parametrize(("start", "end"), [("0.4", "1.2"), (None, "0:00.6"), ("00:00:01", None)])
def test_a_part_is_cut_out_in_step(tmp_path, start, end):
    source = make_clip(tmp_path / "a.mp4", frames=50, options={"g": "12"})
    before = see(source)
    after = done(source, *(("--start", start) if start else ()), *(("--end", end) if end else ()), *QUICK)
    first = Fraction(0) if start is None else read_time(start, "")
    last = Fraction(10) if end is None else read_time(end, "")
    wanted = [number for number, time in enumerate(before.times) if first <= time < last]
    assert after.times == [before.times[number] - first for number in wanted]
    assert likeness(before.pixels[wanted[0]], after.pixels[0]) < 1.5
    sound_before = {content: moment for moment, content in before.packets[1]}
    assert after.packets[1]
    for moment, content in after.packets[1]:
        assert abs(moment - (sound_before[content] - first)) <= Fraction(1, 1000)


def test_side_by_side_shows_the_original_at_the_left(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=3)
    before = see(source)
    after = done(source, "--side-by-side", "--exposure", "1", *QUICK)
    assert after.size == (128, 48)
    assert likeness(after.pixels[1][:, :64], before.pixels[1]) < 2
    assert after.pixels[1][:, 64:].mean() > before.pixels[1].mean() * 1.2


def test_a_contact_sheet_shows_frames_before_and_after(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=20)
    (told,) = map(json.loads, identity(source, "--contact-sheet", "3", "--json").stdout.splitlines())
    assert told["sheet"] == str(tmp_path / "a_lowlight_sheet.png")
    with Image.open(tmp_path / "a_lowlight_sheet.png") as sheet:
        assert sheet.width > 2 * 64
        assert sheet.height > 3 * 48


@pytest.mark.parametrize("more", [(), ("--side-by-side",), ("--start", "0.2", "--end", "0.6")])
def test_a_contact_sheet_asked_for_afterwards_is_that_of_a_run(tmp_path, more):
    source, sheet = make_clip(tmp_path / "a.mp4", frames=20), tmp_path / "a_lowlight_sheet.png"
    told = (source, "--contact-sheet", "3", "--exposure", "1", "--crf", "4", *more)
    assert identity(*told).exit_code == 0
    made = (tmp_path / "a_lowlight.mp4").read_bytes()
    with Image.open(sheet.rename(tmp_path / "once.png")) as image:
        once = np.asarray(image)
    ran = identity(*told, "--json", "--preserve-times")
    assert ran.exit_code == 0, ran.output
    assert json.loads(ran.stdout)["status"] == "compared"
    with Image.open(sheet) as image:
        assert image.size == (once.shape[1], once.shape[0])
        assert likeness(np.asarray(image), once) < 2
    assert sheet.stat().st_mtime_ns == source.stat().st_mtime_ns
    assert (tmp_path / "a_lowlight.mp4").read_bytes() == made


def test_a_contact_sheet_asked_for_afterwards_of_what_is_no_clip_fails_alone(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=3)
    (tmp_path / "a_lowlight.mp4").write_bytes(b"no clip")
    ran = identity(source, "--contact-sheet", "3")
    assert ran.exit_code == 1
    assert "1 failed" in ran.stderr
    assert not (tmp_path / "a_lowlight_sheet.png").exists()


def test_batches_and_tiles_give_the_same_frames(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=10)
    plain = done(source, *QUICK)
    for more in (("--frames-per-batch", "4"), ("--tile", "32")):
        (tmp_path / "a_out.mp4").unlink()
        again = done(source, *QUICK, *more)
        assert all(np.array_equal(one, other) for one, other in zip(plain.pixels, again.pixels, strict=True))


@pytest.mark.parametrize(("at_once", "stabilize"), [(1, 1.0), (3, 1.0), (2, 0.0)])
def test_frames_computed_side_by_side_are_those_of_one_after_the_other(tmp_path, at_once: int, stabilize: float):
    shape = {"width": 4, "img_channel": 12, "extra_channels": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]}
    write_weights(tmp_path / "lifted.safetensors", DarkIR(**shape).state_dict(), {"network": json.dumps(shape)})
    enhancer = load_enhancer("mine", weights=tmp_path / "lifted.safetensors", compute=Compute("cpu"))
    draw = np.random.default_rng(3)
    frames = [ClipFrame(draw.integers(0, 40, (3, 40, 56), dtype=np.uint8), number, 1) for number in range(7)]
    packets = [Packet(1) for _ in range(4)]
    items = [frames[0], packets[0], *frames[1:4], packets[1], packets[2], *frames[4:], packets[3]]
    with torch_threads(2):
        way = Frames(enhancer, ClipSettings(stabilize=stabilize), careful=False, at_once=at_once)
        made = list(way.made(item if isinstance(item, Packet) else ready_frame(item, enhancer) for item in items))
        assert torch.get_num_threads() == 2
    assert [one.frame if isinstance(one, Made) else one for one in made] == items
    for one in made:
        if isinstance(one, Made):
            wanted = enhancer.enhance_tensor(floats(one.frame.pixels, enhancer.device))
            if stabilize:
                assert (one.result - wanted).abs().max() < 1e-5
            else:  # pixels, rounded
                assert (one.result / 255 - wanted).abs().max() < 0.5 / 255 + 1e-5


def ready_frame(frame: ClipFrame, enhancer: Enhancer, image: Tensor | None = None) -> Ready:
    image = floats(frame.pixels, torch.device("cpu")) if image is None else image
    return Ready(frame, image, None, enhancer.backend(enhancer.dtype).whole_enhancer(image))


@pytest.mark.parametrize("stabilize", [0.0, 1.0])
@pytest.mark.parametrize("at_once", [1, 2])
def test_a_frame_that_breaks_ends_the_clip_and_leaves_torch_its_threads(at_once: int, stabilize: float):
    enhancer = load_enhancer("identity", compute=Compute("cpu"))
    frame = ClipFrame(np.zeros((3, 8, 8), np.uint8), 0, 1)
    sound, broken = torch.zeros(1, 3, 8, 8), torch.full((1, 3, 8, 8), torch.nan)
    before = torch.get_num_threads()
    way = Frames(enhancer, ClipSettings(stabilize=stabilize), careful=False, at_once=at_once)
    images = (sound, sound, broken, sound, sound, sound, sound)
    with pytest.raises(NumericsError, match="not finite"):
        list(way.made(ready_frame(frame, enhancer, image) for image in images))
    assert torch.get_num_threads() == before


def test_clips_whose_contact_sheets_would_share_a_name_are_refused(tmp_path):
    for name in ("a.mp4", "a.mkv"):
        make_clip(tmp_path / name)
    ran = identity(tmp_path, "--contact-sheet", "2")
    assert ran.exit_code == 2
    assert "a_lowlight_sheet.png" in ran.stderr
    assert len(list(tmp_path.iterdir())) == 2


def test_a_clip_that_memory_cannot_hold_fails_alone(tmp_path, monkeypatch):
    for name in ("a", "b"):
        make_clip(tmp_path / f"{name}.mp4")
    full = iter([torch.OutOfMemoryError("CUDA out of memory")])

    def pixels(result, **how):
        for error in full:
            raise error
        return pixels_of(result, **how)

    monkeypatch.setattr("lowlight_cli.clip.frames.pixels_of", pixels)
    ran = identity(tmp_path, "--stabilize-light", "--json")
    assert ran.exit_code == 1
    a, b = (json.loads(line) for line in ran.stdout.splitlines())
    assert (a["status"], a["error"]["code"], b["status"]) == ("failed", "memory", "done")
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4", "b_lowlight.mp4"}


def test_light_is_calmed_where_a_network_computes_or_where_that_is_asked(tmp_path):
    wobble = np.random.default_rng(0).uniform(0.9, 1.1, 40)
    pictures = [np.rint(pattern(0, width=64, height=48) * level).astype(np.uint8) for level in wobble]
    source = make_clip(tmp_path / "a.mp4", frames=len(pictures), pictures=iter(pictures))

    def wavering(*options: str) -> float:
        seen = done(source, "--overwrite", *QUICK, *options)
        return float(np.std([frame.mean() for frame in seen.pixels]))

    as_it_is = float(np.std([frame.mean() for frame in see(source).pixels]))
    assert wavering() == pytest.approx(as_it_is, rel=0.02), "the identity is the film as it is"
    assert wavering("--no-stabilize-light") == pytest.approx(as_it_is, rel=0.02)
    calm = wavering("--stabilize-light")
    assert calm < as_it_is / 3
    assert calm < wavering("--stabilize-strength", "0.5") < as_it_is * 0.8


def test_json_holds_what_scripts_need(tmp_path):
    source = make_clip(tmp_path / "a.mp4")
    (told,) = map(json.loads, identity(source, "--json").stdout.splitlines())
    assert (told["status"], told["frames"], told["width"], told["height"], told["codec"]) == (
        "done", 12, 64, 48, "libx264",
    )  # fmt: skip
    assert told["duration"] == pytest.approx(0.48, abs=0.001)
    assert told["frames_per_second"] > 0
    assert identity(source).exit_code == 0
    assert "1 skipped" in identity(source).stderr


def test_progress_tells_pace_and_what_is_left(capsys):
    now = iter(range(0, 1000, 20))
    draw = _drawing(Show(1, noun="clips", clock=lambda: next(now)))
    draw(ClipProgress("a.mp4", 30, 10_000, 12.5))
    draw(ClipProgress("a.mp4", 80, 10_000, 12.5))
    draw(ClipProgress("b.mp4", 8, None, 2.0, "fit"))
    draw(ClipProgress("b.mp4", 9, None, 2.0, "fit"))
    assert capsys.readouterr().err.splitlines() == [
        "a.mp4: 80 of 10000 frames, 12.5 a second, 1:06:08 left",
        "b.mp4: 9 steps, 2.0 a second",
    ]


def test_the_threads_beside_the_network_compute_alone_and_leave_it_its_own():
    before, found = torch.get_num_threads(), []

    def work() -> None:
        compute_alone()
        found.append(torch.get_num_threads())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [1]
    assert torch.get_num_threads() == before


def test_a_thread_interrupted_as_it_starts_reads_no_closed_file(monkeypatch: pytest.MonkeyPatch):
    begin, closed, used = threading.Thread.start, threading.Event(), []

    def items() -> Iterator[int]:
        for number in itertools.count():
            used.append(closed.is_set())
            time.sleep(0.001)  # there is more to read than the block lasts
            yield number

    def begin_and_be_interrupted(thread: threading.Thread) -> None:
        begin(thread)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", begin_and_be_interrupted)
    for _ in range(20):
        closed.clear()
        with pytest.raises(KeyboardInterrupt), Prefetcher(items(), room=1000):
            pass
        closed.set()
        time.sleep(0.005)
    assert not any(used)


def bad_clips(folder: Path) -> dict[str, Path]:
    whole = make_clip(folder / "whole.mp4", frames=30)
    data = whole.read_bytes()
    whole.unlink()
    sound = folder / "sound.mp4"
    with av.open(str(sound), "w") as output:
        stream = output.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 8000
        output.mux([*stream.encode(frame), *stream.encode(None)])
    contents = {"empty.mp4": b"", "words.mkv": b"no clip at all\n" * 99, "headless.mp4": data[: len(data) // 2],
                "noise.webm": np.random.default_rng(0).bytes(5000),
                "unknown.mp4": data.replace(b"avc1", b"xxxx")}  # fmt: skip
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return {path.name: path for path in (sound, *(folder / name for name in contents))}


def test_a_bad_clip_fails_with_a_sentence_and_its_neighbours_are_done(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    bad = bad_clips(folder)
    make_clip(folder / "good.mp4")
    ran = identity(folder, "-o", tmp_path / "out", "--json")
    assert ran.exit_code == 1
    told = {Path(one["input"]).name: one for one in map(json.loads, ran.stdout.splitlines())}
    assert told["good.mp4"]["status"] == "done"
    for name in bad:
        assert told[name]["status"] == "failed"
        assert told[name]["error"]["code"] == "input"
        assert re.fullmatch(r"[^\n]{10,150}", told[name]["error"]["message"])
    assert "there is no film in it, only audio" in told["sound.mp4"]["error"]["message"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good.mp4"]
    assert "Traceback" not in ran.output


def test_of_a_clip_that_breaks_off_what_can_be_read_is_done_and_said(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", frames=100, size=(128, 96))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    ran = identity(cut)
    assert ran.exit_code == 0, ran.output
    assert "breaks off" in ran.stderr
    assert 30 < len(see(tmp_path / "cut_lowlight.mkv").pixels) < 100


@pytest.mark.parametrize("place", [-1, -2, -3, -8, 30])
def test_a_damaged_packet_costs_no_other_frame(tmp_path, place):
    """The decoder's threads hold back the last frames, and drop them where one is damaged."""
    source = make_clip(tmp_path / "a.mp4", frames=60, sound=None, options={"preset": "medium"})
    with av.open(str(source)) as clip:
        packet = [packet for packet in clip.demux(video=0) if packet.size][place]
        start, size = packet.pos, packet.size
    content = bytearray(source.read_bytes())
    content[start : start + size] = b"\xff" * size
    source.write_bytes(content)
    with ClipReader(probe_clip(source)) as reader:
        frames = [item for item in reader.read() if isinstance(item, ClipFrame)]
    assert len(frames) == 59
    assert reader.warnings == ("1 damaged packet of the film could not be decoded",)


@pytest.mark.parametrize("share", [0.5, 0.7, 0.9])
def test_a_fragmented_clip_that_breaks_off_gives_every_frame_and_says_so(tmp_path, share):
    whole = make_clip(tmp_path / "whole.mp4", frames=60, options={"preset": "medium", "g": "12"})
    source = tmp_path / "a.mp4"
    with (
        av.open(str(whole)) as clip,
        av.open(str(source), "w", options={"movflags": "frag_keyframe+empty_moov"}) as cut,
    ):
        film = cut.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.size:
                packet.stream = film
                cut.mux(packet)
    source.write_bytes(source.read_bytes()[: int(share * source.stat().st_size)])
    with av.open(str(source)) as clip:
        clip.streams.video[0].thread_type = "NONE"
        readable = 0
        for packet in clip.demux(video=0):
            with contextlib.suppress(av.FFmpegError):
                readable += len(packet.decode())
    with ClipReader(probe_clip(source)) as reader:
        frames = [item for item in reader.read() if isinstance(item, ClipFrame)]
    assert len(frames) == readable
    assert "breaks off" in reader.warnings[0]


def test_a_film_whose_frames_change_size_is_done_and_said(tmp_path):
    parts = [make_clip(tmp_path / f"{width}.ts", frames=5, size=(width, 48), sound=None) for width in (64, 96)]
    clip = tmp_path / "a.ts"
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    ran = identity(clip, "-o", tmp_path / "out.mp4", "--json")
    assert ran.exit_code == 0, ran.output
    said = [warning for warning in json.loads(ran.stdout)["warnings"] if "change size" in warning]
    assert said == ["the film's frames change size; they are all scaled to the size of the first"]
    seen = see(tmp_path / "out.mp4")
    assert len(seen.pixels) == 10
    assert {picture.shape for picture in seen.pixels} == {(48, 64, 3)}
    turned = make_clip(tmp_path / "turned.mp4", turn=(90, False))
    assert not json.loads(identity(turned, "--json").stdout)["warnings"]


def with_pictures(path: Path, codec: str, sizes: list[tuple[int, int]]) -> Path:
    """A film of black frames of these sizes, one packet each; the container tells the first."""
    with av.open(str(path), "w") as output:
        film = output.add_stream(codec, rate=25)
        film.width, film.height, film.pix_fmt = *sizes[0], film.codec_context.codec.video_formats[0].name
        for time, (width, height) in enumerate(sizes):
            encoder = av.CodecContext.create(codec, "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, film.pix_fmt
            encoder.time_base = film.codec_context.time_base = Fraction(1, 25)
            frame = av.VideoFrame(width, height, film.pix_fmt)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            (made,) = [*encoder.encode(frame), *encoder.encode(None)]
            packet = Packet(bytes(made))
            packet.pts = packet.dts = time
            packet.duration, packet.time_base, packet.stream, packet.is_keyframe = 1, Fraction(1, 25), film, True
            output.mux(packet)
    return path


@pytest.mark.parametrize("codec", ["png", "mjpeg", "mpeg4", "libx264", "jpeg2000"])
@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("larger", [(80, 72), (3200, 1600)])
def test_no_frame_may_have_more_pixels_than_are_allowed(tmp_path, codec, place, larger):
    """Those that are only a little larger are decoded, for decoders count roughly, and refused all the same."""
    sizes = [(80, 64)] * 4
    sizes[place] = larger
    source = with_pictures(tmp_path / "a.mov", codec, sizes)
    allowed = ("--max-megapixels", "0.00512")
    ran = identity(source, "-o", tmp_path / "b.mp4", *allowed, "--json")
    if codec == "jpeg2000" and larger[0] > 80:  # which does not tell its refusal from damage
        assert (json.loads(ran.stdout)["frames"], ran.exit_code) == (3, 0)
        return
    assert ran.exit_code == 1, ran.output
    assert re.search("its film has .*more .*than --max-megapixels allows", json.loads(ran.stdout)["error"]["message"])
    assert not (tmp_path / "b.mp4").exists()
    if larger == (80, 72):
        smaller = with_pictures(tmp_path / "c.mov", codec, [(80, 64), (64, 48), (64, 80)])
        assert done(smaller, *allowed).size == (80, 64)


@pytest.mark.parametrize("place", [0, 1])
def test_a_frame_that_is_too_large_is_refused_before_it_takes_memory(tmp_path, place):
    sizes = [(64, 48), (64, 48)]
    sizes[place] = (8000, 8000)
    source = with_pictures(tmp_path / "a.mov", "png", sizes)
    looking = (
        "import resource, sys; from pathlib import Path; from lowlight_cli.video.facts import probe_clip\n"
        "from lowlight_cli.video.reading import ClipReader; from lowlight_cli.errors import InputError\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10\n"
        "before = peak()\n"
        "try: list(ClipReader(probe_clip(Path(sys.argv[1]), most_pixels=10**6)).read())\n"
        "except InputError as error: print(peak() - before, error)\n"
    )
    told = subprocess.run([sys.executable, "-c", looking, source], capture_output=True, text=True, check=True).stdout
    megabytes, said = told.split(maxsplit=1)
    assert "--max-megapixels" in said
    assert int(megabytes) < 60, "a frame of 192 MB was decoded"


def test_an_animated_gif_becomes_a_film(tmp_path):
    frames = [Image.new("RGB", (24, 16), (level, 20, 40)) for level in (10, 60, 110)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=80)
    assert identity(tmp_path / "a.gif").exit_code == 0
    assert len(see(tmp_path / "a_lowlight.mp4").pixels) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--codec", "docx"], "docx"),
        (["--encoder-arg", "nonsense=1"], "nonsense"),
        (["--encoder-arg", "nonsense"], "--encoder-arg"),
        (["--encoder-arg", "crf=10", "--crf", "20"], "--encoder-arg crf=10 and --crf mean the same; give one of them"),
        (["--encoder-arg", "preset=slow", "--preset", "fast"], "preset=slow and --preset mean the same"),
        (["--start", "soon"], "--start"),
        (["--start", "2", "--end", "1"], "--end"),
        (["--crf", "60"], "--crf"),
        (["--preset", "sideways"], "veryfast"),
        (["--codec", "vp9", "--preset", "ultrafast"], "number from -8 to 8"),
        (["--pix-fmt", "rgb565"], "rgb565"),
        (["--format", "docx"], "docx"),
        (["-o", "-"], "streams"),
    ],
)
def test_wrong_use_is_one_sentence_and_exit_2(tmp_path, arguments, said):
    source = make_clip(tmp_path / "a.mp4", frames=2)
    ran = identity(source, *arguments)
    assert ran.exit_code == 2, ran.output
    assert said in ran.stderr
    assert "Traceback" not in ran.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_plan_of_clips_is_held_against_the_codec(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=2)
    assert identity(source, "--dry-run", "--codec", "vp9").exit_code == 0
    for options, said in ((("--codec", "docx"), "docx"), (("--codec", "h264", "--format", "webm"), "webm")):
        ran = identity(source, "--dry-run", *options)
        assert ran.exit_code == 2
        assert said in ran.stderr


@given(st.integers(0, 99), st.integers(0, 59), st.integers(0, 59_999))
def test_times_are_read_exactly(hours, minutes, milliseconds):
    text = f"{hours}:{minutes:02}:{milliseconds / 1000:06.3f}"
    assert read_time(text, "--start") == hours * 3600 + minutes * 60 + Fraction(milliseconds, 1000)
    assert read_time(f"{milliseconds / 1000:.3f}", "--start") == Fraction(milliseconds, 1000)


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "1:60", "1.5:00", "x", "1:", "inf", "1e3"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(SettingsError, match="--end"):
        read_time(text, "--end")


@settings(max_examples=20)
@given(
    parts=st.lists(st.tuples(st.binary(max_size=50), st.integers(-9, 9), st.booleans()), max_size=9),
    state=st.lists(st.floats(width=32, allow_nan=False), max_size=5),
)
def test_segments_come_back_as_they_were(tmp_path_factory, parts, state):
    store = SegmentStore(tmp_path_factory.mktemp("store") / "a.mp4", "one run")
    store.prepare()
    segment = Segment(
        len(parts),
        [data for data, _, _ in parts],
        [(time, time, 1) for _, time, _ in parts],
        [key for *_, key in parts],
    )
    store.save(0, segment, {"light": np.array(state, np.float32)})
    found, kept = store.load(0)
    assert found == segment
    np.testing.assert_array_equal(kept["light"], np.array(state, np.float32))
    assert store.finished() == 1


def test_segments_of_another_run_are_thrown_away(tmp_path):
    first = SegmentStore(tmp_path / "a.mp4", "one run")
    first.prepare()
    first.save(0, Segment(), {})
    other = SegmentStore(tmp_path / "a.mp4", "another")
    assert other.finished() == 0
    other.prepare()
    assert first.finished() == 0
    remove_segments(tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_clip_that_does_not_begin_at_zero_does_not_break_off(tmp_path):
    source = make_clip(tmp_path / "late.mkv", times=range(5 * 25, 5 * 25 + 50), sound=None)
    ran = identity(source, "--json")
    (told,) = map(json.loads, ran.stdout.splitlines())
    assert (told["frames"], told["warnings"]) == (50, [])
    assert told["duration"] == pytest.approx(2, abs=0.05)


def test_the_shape_of_pixels_is_the_containers_where_both_tell_one(tmp_path):
    source = make_clip(tmp_path / "a.mp4", codec="libsvtav1", aspect=Fraction(4, 3), sound=None)
    seen = done(source, "--codec", "h264")
    assert seen.aspect == Fraction(4, 3)
    ran = identity(source, "-o", tmp_path / "b.webm", "--codec", "vp9", "--json")
    (told,) = map(json.loads, ran.stdout.splitlines())
    assert "not square" in told["warnings"][0]


def test_webm_drops_aac_with_a_word_and_the_help_says_so_before(tmp_path):
    assert "AAC is dropped" in " ".join(re.sub(r"[│|]", " ", lowlight("video", "--help").stdout).split())
    source = make_clip(tmp_path / "a.mp4", frames=6)
    ran = identity(source, "-o", tmp_path / "b.webm", "--codec", "vp9", "--json")
    (told,) = map(json.loads, ran.stdout.splitlines())
    assert any("aac" in sentence for sentence in told["warnings"])


def test_an_encoder_that_cannot_begin_is_wrong_use(tmp_path):
    source = make_clip(tmp_path / "a.mp4", sound=None, frames=4)
    ran = identity(source, "--encoder-arg", "profile=nope")
    assert ran.exit_code == 2
    assert "profile=nope" in ran.stderr
    assert list(tmp_path.iterdir()) == [source]


def test_an_encoder_of_another_range_says_which_pixels_it_takes(tmp_path):
    source = make_clip(tmp_path / "a.mp4", sound=None, frames=4)
    ran = identity(source, "--codec", "mjpeg", "-o", tmp_path / "b.mkv")
    assert ran.exit_code == 2
    assert "mjpeg cannot begin for 64x48 yuv420p: invalid argument; try --pix-fmt yuvj420p" in ran.stderr
    assert identity(source, "--codec", "mjpeg", "-o", tmp_path / "b.mkv", "--pix-fmt", "yuvj420p").exit_code == 0


def test_an_option_that_a_later_clip_cannot_have_fails_that_clip_alone(tmp_path):
    for name, codec in (("a.mp4", "libx264"), ("b.webm", "libvpx-vp9"), ("c.mp4", "libx264")):
        make_clip(tmp_path / name, codec=codec, sound=None, frames=4)
    ran = identity(tmp_path, "--pix-fmt", "gray", "--json")
    assert ran.exit_code == 1
    told = [json.loads(line)["status"] for line in ran.stdout.splitlines()]
    assert told == ["done", "failed", "done"]


def test_networks_of_one_name_are_told_apart(tmp_path):
    made_of = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_weights(folder / "mine.safetensors", DarkIR(width=8).state_dict(), {})
        made_of.add(load_enhancer("mine", weights=folder / "mine.safetensors", compute=Compute("cpu")).made_of)
    assert len(made_of) == 2


def test_slow_films_come_out_in_containers_that_do_not_hold_how_long_a_frame_is_shown(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=6, rate=Fraction(1), time_base=Fraction(1), sound=None)
    for suffix in (".ts", ".flv"):
        assert len(done(source, *QUICK, suffix=suffix).times) == 6


def test_a_tile_that_covers_the_frame_is_none(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=4)
    ran = lowlight("video", source, "-o", tmp_path / "b.mp4", "--tile", "64", "--json", "--device", "cpu")
    assert json.loads(ran.stdout)["tile"] == 0


def test_a_contact_sheet_of_a_clip_without_a_length_reaches_its_end(tmp_path):
    made = make_clip(tmp_path / "a.mkv", frames=100, options={"g": "10"}, sound=None)
    source = tmp_path / "live.mkv"
    with av.open(str(made)) as known, av.open(str(source), "w", container_options={"live": "1"}) as live:
        film = live.add_stream_from_template(known.streams.video[0])
        for packet in known.demux(known.streams.video[0]):
            if packet.size:
                packet.stream = film
                live.mux(packet)
    assert probe_clip(source).seconds is None
    sheet = ContactSheet(tmp_path / "sheet.png", 4, length=None, start=Fraction(0))
    with ClipReader(probe_clip(source)) as reader:
        for item in reader.read():
            if isinstance(item, ClipFrame):
                sheet.see(item.shown * reader.facts.time_base, item.pixels, item.pixels)
    moments = [float(line[0].label.split(" s")[0]) for line in sheet.chosen()]
    assert np.diff(moments) == pytest.approx(1, abs=0.35)  # four of four seconds
    assert identity(source, "--contact-sheet", "4").exit_code == 0
    assert (tmp_path / "live_lowlight_sheet.png").exists()


def test_an_option_that_the_first_clip_cannot_have_ends_the_run_whoever_works(tmp_path, monkeypatch):
    """A later clip fails alone, also where it is some worker's first."""
    for name, size in (("a.mkv", (64, 48)), ("b.mkv", (63, 47)), ("c.mkv", (64, 48))):
        make_clip(tmp_path / name, frames=3, size=size, codec="ffv1", pixel_format="yuv444p", sound=None)
    monkeypatch.setattr("lowlight_cli.spread.pool.choose_devices", lambda _: (torch.device("cpu"),) * 2)
    arguments = ("--pix-fmt", "yuv420p", "--json", "-o", f"{tmp_path}/out/")
    ran = lowlight("video", tmp_path, "--model", "identity", *arguments)
    assert ran.exit_code == 1
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert [one["status"] for one in told] == ["done", "failed", "done"]
    assert told[1]["error"]["code"] == "usage"
    ran = lowlight("video", tmp_path / "b.mkv", tmp_path / "c.mkv", "--model", "identity", "--overwrite", *arguments)
    assert (ran.exit_code, ran.stdout) == (2, "")


@pytest.mark.parametrize("at_once", [2, 3])
def test_no_more_frames_are_computed_at_a_time_than_memory_was_reckoned_for(at_once: int):
    enhancer = load_enhancer("identity", compute=Compute("cpu"))
    lock, now, most = threading.Lock(), 0, 0

    def enhance(image: Tensor) -> Tensor:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return image

    frames = [ClipFrame(np.zeros((3, 8, 8), np.uint8), number, 1) for number in range(16)]
    with torch_threads(8):
        way = Frames(enhancer, ClipSettings(stabilize=0.0), careful=False, at_once=at_once)
        ready = (replace(ready_frame(frame, enhancer), enhance=enhance) for frame in frames)
        assert [one.frame for one in way.made(ready) if isinstance(one, Made)] == frames
    assert most == at_once


def test_after_a_frame_that_memory_could_not_hold_all_cores_share_the_others():
    enhancer = load_enhancer("identity", compute=Compute("cpu"))
    threads: list[int] = []

    def enhance(image: Tensor) -> Tensor:
        raise MemoryError

    def tiled(image: Tensor) -> Tensor:
        threads.append(torch.get_num_threads())
        return image

    frames = [ClipFrame(np.zeros((3, 8, 8), np.uint8), number, 1) for number in range(12)]
    with torch_threads(2):
        way = Frames(enhancer, ClipSettings(stabilize=0.0), careful=False, at_once=2)
        enhancer.enhance_tensor = tiled  # type: ignore[method-assign,assignment]
        ready = (replace(ready_frame(frame, enhancer), enhance=enhance) for frame in frames)
        assert [one.frame for one in way.made(ready) if isinstance(one, Made)] == frames
    assert threads[-6:] == [2] * 6


def test_a_clip_leaves_other_threads_their_cores(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=4)
    seen: list[int] = []
    with torch_threads(2):
        done(source, *QUICK, "--tile", "32")
        later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        later.start()
        later.join()
    assert seen == [2]


def test_resuming_minds_whether_cores_shared_frames_and_not_how_many_fit(tmp_path, monkeypatch):
    facts = probe_clip(make_clip(tmp_path / "a.mp4", frames=3))
    enhancer, prints = load_enhancer("identity", compute=Compute("cpu")), []
    for at_once in (1, 2, 5):
        monkeypatch.setattr(enhancer, "at_once", lambda *_, count=at_once: count)
        prints.append(_fingerprint(facts, enhancer, ClipSettings(), None))
    assert prints[0] != prints[1] == prints[2]


@pytest.mark.parametrize(
    "options",
    [
        ("--no-stabilize-light", "--stabilize-strength", "0.5"),
        ("--zero-shot", "--dilations", "1,4,9"),
        ("--model", "identity", "--dilations", "1,4,9"),
    ],
)
def test_options_that_mean_nothing_together_are_refused(tmp_path, options):
    ran = lowlight("video", make_clip(tmp_path / "a.mp4", frames=2), *options)
    assert ran.exit_code == 2
    assert not (tmp_path / "a_lowlight.mp4").exists()


def test_a_codec_that_no_result_can_hold_is_refused_before_any_work(tmp_path):
    clips = [make_clip(tmp_path / name, frames=2, sound=None) for name in ("a.mp4", "b.mkv")]
    ran = identity(clips[0], "--codec", "h264", "-o", tmp_path / "q.webm")
    assert ran.exit_code == 2
    assert "webm" in ran.stderr
    assert identity(*clips, "--codec", "hevc", "--format", "flv", "-o", tmp_path / "out").exit_code == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("concat.mp4", "ffconcat version 1.0\nfile secret.mp4\n"),
        ("nested.mp4", "ffconcat version 1.0\nfile list.m3u8\n"),
        ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n"),
        ("words.mkv", "# VobSub index file, v7 (do not modify this line!)\nsize: 64x48\nid: en, index: 0\n"
                      "timestamp: 00:00:00:000, filepos: 000000000\n"),
        ("numbered%02d.png", None),
    ],
)  # fmt: skip
def test_a_clip_that_names_other_files_opens_none_of_them(tmp_path, name, content):
    for secret in ("secret.mp4", "secret.ts", "words.sub"):
        make_clip(tmp_path / secret, frames=3, sound=None, format="mpegts" if secret.endswith(".sub") else None)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n")
    for file in (name, "numbered01.png"):
        Image.new("RGB", (64, 48)).save(tmp_path / file, "PNG")
    if content is not None:
        (tmp_path / name).write_text(content)
    ran = identity(tmp_path / name, "-o", tmp_path / "out.mp4")
    assert ran.exit_code == 1, ran.output
    assert ("a kind that is read" if content else "`lowlight enhance` does pictures") in ran.stderr
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("format", "codec", "pixel_format"),
    [
        *((name, "libx264", "yuv420p") for name in ("mp4", "mov", "3gp", "matroska", "avi", "flv", "mpegts", "nut")),
        *((name, "libx264", "yuv420p") for name in ("h264",)),
        *((name, "mpeg4", "yuv420p") for name in ("asf", "m4v")),
        *((name, "mpeg2video", "yuv420p") for name in ("mpeg", "vob", "mxf", "mpeg2video")),
        *((name, "libvpx", "yuv420p") for name in ("webm", "ivf", "ogg")),
        ("yuv4mpegpipe", "wrapped_avframe", "yuv420p"),
        *((name, "mjpeg", "yuvj420p") for name in ("mjpeg", "gxf")),
        ("gif", "gif", "bgr8"),
        ("apng", "apng", "rgb24"),
        ("hevc", "libx265", "yuv420p"),
        ("obu", "libsvtav1", "yuv420p"),
    ],
)
def test_films_are_read_in_all_the_containers_there_are(tmp_path, format, codec, pixel_format):
    size = (720, 480) if format == "gxf" else (64, 64)
    rate = Fraction(30000, 1001) if format == "gxf" else Fraction(25)
    clip = make_clip(tmp_path / "a", format=format, codec=codec, pixel_format=pixel_format, sound=None, size=size,
                     frames=5, rate=rate, time_base=1 / rate)  # fmt: skip
    assert probe_clip(clip).width == size[0]


def test_clips_that_cannot_be_done_say_why(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert "it is empty" in identity(tmp_path / "empty.mp4").stderr
    ran = identity(make_clip(tmp_path / "a.mp4", frames=50, sound=None), "--start", "5")
    assert ran.exit_code == 1
    assert "no frame of its film lies in the part asked for, of a clip of 2.0 seconds" in ran.stderr


@pytest.mark.parametrize("group", ["12", "250"])
@pytest.mark.parametrize(("start", "end", "frames"), [("1", None, 50), ("1", "1.6", 15), ("0.2", "0.4", 5)])
def test_a_part_of_a_stream_without_an_index_is_whole(tmp_path, group, start, end, frames):
    source = make_clip(tmp_path / "a.ts", frames=75, options={"g": group}, sound=None)
    seen = done(source, *QUICK, "--start", start, *(() if end is None else ("--end", end)), suffix=".mkv")
    assert len(seen.times) == frames


def test_transport_streams_keep_their_sound(tmp_path):
    source = make_clip(tmp_path / "a.ts", frames=25)
    before, after = see(source), done(source, *QUICK, suffix=".ts")
    assert [len(packets) for packets in after.packets.values()] == [len(each) for each in before.packets.values()]
    assert after.packets


def test_a_contact_sheet_of_one_frame_shows_it(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=1, sound=None)
    (told,) = map(json.loads, identity(source, "--contact-sheet", "3", "--json").stdout.splitlines())
    assert told["sheet"]
    assert (tmp_path / "a_lowlight_sheet.png").exists()


def test_subtitles_on_screen_at_the_ends_of_a_part_are_cut_to_it(tmp_path):
    (tmp_path / "a.srt").write_text(
        "1\n00:00:00,500 --> 00:00:01,300\nhere\n\n2\n00:00:01,800 --> 00:00:02,700\nthere\n"
    )
    made, source = make_clip(tmp_path / "film.mkv", frames=75, sound=None), tmp_path / "a.mkv"
    with (
        av.open(str(made)) as film,
        av.open(str(tmp_path / "a.srt")) as words,
        av.open(str(source), "w") as file,
    ):
        targets = [file.add_stream_from_template(each.streams[0]) for each in (film, words)]
        for known, target in zip((words, film), targets[::-1], strict=True):
            for packet in known.demux():
                if packet.size:
                    packet.stream = target
                    file.mux(packet)
    result = tmp_path / "b.mkv"
    assert identity(source, "-o", result, "--start", "1", "--end", "2", *QUICK).exit_code == 0
    with av.open(str(result)) as file:
        told = [(float(p.pts * p.time_base), float(p.duration * p.time_base))
                for p in file.demux(file.streams.subtitles[0]) if p.size]  # fmt: skip
    assert told == [pytest.approx((0.0, 0.3), abs=0.002), pytest.approx((0.8, 0.2), abs=0.002)]


def test_resuming_takes_away_what_the_killed_run_left(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=6)
    left = tmp_path / ".b.mp4.0123abcd.part"
    left.write_bytes(b"short")
    store = SegmentStore(tmp_path / "b.mp4", "whatever")
    assert identity(source, "-o", tmp_path / "b.mp4", "--overwrite", *QUICK).exit_code == 0
    assert left.exists(), "without --resume another run may be at work"
    store.prepare()
    assert identity(source, "-o", tmp_path / "b.mp4", "--overwrite", "--resume", *QUICK).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


@pytest.mark.parametrize("planted", ["a link", "a file", "a folder of another user"])
def test_resuming_touches_nothing_that_others_planted_in_its_place(tmp_path, monkeypatch, planted):
    source, target = make_clip(tmp_path / "a.mp4", frames=3), tmp_path / "b.mp4"
    SegmentStore(target, "whatever").prepare()
    (folder,) = tmp_path.glob(".b.mp4.*.resume")
    remove_segments(target)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "run").write_text("precious")
    if planted == "a link":
        folder.symlink_to(mine)
    elif planted == "a file":
        folder.write_text("precious")
    else:
        mine.rename(folder)
        monkeypatch.setattr(os, "geteuid", lambda: folder.stat().st_uid + 1)
    before = {path: path.is_file() and path.read_text() for path in tmp_path.glob("*/*")}
    ran = identity(source, "-o", target, *QUICK, "--resume")
    assert ran.exit_code == 1
    assert "is no folder of yours" in ran.stderr
    assert not target.exists()
    assert {path: path.is_file() and path.read_text() for path in tmp_path.glob("*/*")} == before


def test_segments_are_for_their_owner_and_what_is_not_theirs_is_left(tmp_path):
    store = SegmentStore(tmp_path / "a.mp4", "one run")
    store.prepare()
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)  # as another version made it
    (folder / "diary.txt").write_text("dear")
    (folder / ".000000.npz.0123abcd.part").write_text("left by a kill")
    store.save(0, Segment(), {})
    (folder / "000001.npz").symlink_to(tmp_path / "elsewhere")
    store.prepare()
    store.save(1, Segment(), {})
    assert store.finished() == 2
    assert not (tmp_path / "elsewhere").exists()
    SegmentStore(tmp_path / "a.mp4", "another run").prepare()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in folder.iterdir()} == {"run", "diary.txt"}


@pytest.mark.parametrize("keeping", [(), ("--preserve-times",)])
def test_a_clip_that_is_skipped_loses_the_segments_that_its_result_outlived_and_no_newer_ones(tmp_path, keeping):
    source, target = make_clip(tmp_path / "a.mp4", frames=6), tmp_path / "b.mp4"
    os.utime(source, (0, 0))
    SegmentStore(target, "of a run that was killed when its result was complete").prepare()
    (left,) = tmp_path.glob(".b.mp4.*.resume")
    left.rename(tmp_path / "aside")
    assert identity(source, "-o", target, *QUICK, *keeping).exit_code == 0
    (tmp_path / "aside").rename(left)
    assert "1 skipped" in identity(source, "-o", target, *QUICK, "--resume").stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}
    SegmentStore(target, "of a run with --overwrite").prepare()
    assert "1 skipped" in identity(source, "-o", target, *QUICK).stderr
    assert left.exists()


def test_two_runs_do_not_work_on_the_same_segments(tmp_path):
    source, target = make_clip(tmp_path / "a.mp4", frames=6), tmp_path / "b.mp4"
    with SegmentStore(target, "of a run at work").held():
        ran = identity(source, "-o", target, *QUICK, "--resume")
    assert ran.exit_code == 1
    assert "another run with --resume is at work on it" in ran.stderr
    assert not target.exists()
    assert identity(source, "-o", target, *QUICK, "--resume").exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4"}


def test_segments_are_of_one_way_of_cutting_frames_into_tiles(tmp_path):
    facts = probe_clip(make_clip(tmp_path / "a.mp4", frames=2))

    def named(tiling):
        enhancer = load_enhancer("darkir-small", compute=Compute("cpu", "fp32", tiling))
        return _fingerprint(facts, enhancer, ClipSettings(resume=True), None)

    assert named(Tiling(32, 0)) == named(Tiling(32, 0))
    assert len({named(Tiling(32, 0)), named(Tiling(32, 8)), named(Tiling(16, 8)), named(Tiling(0, 8))}) == 4
    assert named(Tiling(0, 8)) == named(Tiling(0, 16)), "there are no tiles to blend"


# As MALLOC_PERTURB_ does: glibc fills what it hands out, from here on.
FILLING = """
import ctypes, sys
from lowlight_cli.__main__ import main
assert ctypes.CDLL(None).mallopt(-6, int(sys.argv.pop(1)))
main()
"""


def test_a_clip_has_the_same_bytes_whatever_memory_held_before(forked, tmp_path):
    """With several threads x264 reads memory that nobody wrote, at the end of a segment."""
    rows, columns = np.mgrid[0:180, 0:320]
    shades = (np.stack((rows + 7 * t, columns * 2 - 5 * t, rows * columns // 40 + 3 * t), axis=-1) for t in range(40))
    turning = ((each % 256 // 4 + 20).astype(np.uint8) for each in shades)
    source = make_clip(tmp_path / "a.mp4", frames=40, size=(320, 180), pictures=turning, sound=None)
    digests = set()
    for fill in ("85", "170"):
        target = tmp_path / f"{fill}.mp4"
        command = ("video", source, "-o", target, "--model", "identity", "-q")
        ran = forked.run(FILLING, fill, *command, call="forks:execute")
        assert ran.code == 0, ran.said
        digests.add(target.read_bytes())
    assert len(digests) == 1
