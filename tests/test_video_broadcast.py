"""Clips as cameras, recorders and editors make them: joined, damaged, captioned, with time codes and costly codecs."""

import json
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type as SideData
from clipmaking import Seen, make_clip, see
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from lowlight_cli.cli import app
from lowlight_cli.video.joints import Joints
from lowlight_cli.video.tracks import moved_timecode

QUICK = ("--preset", "ultrafast", "--crf", "5")


def run(source: Path, *arguments: str | Path) -> Result:
    command = ["video", source, "--model", "identity", "--device", "cpu", "--json", *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in command])


def done(source: Path, target: Path, *arguments: str | Path) -> tuple[Seen, list[str]]:
    """Run, and return what came out and the warnings."""
    ran = run(source, "-o", target, *arguments)
    assert ran.exit_code == 0, ran.output
    (told,) = map(json.loads, ran.stdout.splitlines())
    return see(target.absolute()), told["warnings"]


def ends(seen: Seen) -> list[float]:
    return [float(packets[-1][0]) for packets in seen.packets.values()]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".ts"])
def test_joined_streams_are_shown_one_after_the_other_with_their_sound(tmp_path: Path, suffix: str) -> None:
    for sound, room in (("aac", 0.2), (None, 0.001)):  # a packet of the sound may end so much after the film
        joined = make_clip(tmp_path / "a.ts", frames=50, sound=sound)
        joined.write_bytes(joined.read_bytes() * 3)
        seen, warnings = done(joined, tmp_path / f"out{suffix}", "--overwrite", *QUICK)
        steps = np.diff([float(time) for time in seen.times])
        assert len(seen.times) == 150
        assert steps[[*range(49), *range(50, 99), *range(100, 149)]] == pytest.approx(0.04, abs=0.002)
        assert 0.039 < steps[[49, 99]].min() <= steps[[49, 99]].max() < 0.042 + room
        assert ends(seen) == pytest.approx([float(seen.times[-1])] * (sound is not None), abs=0.2)
        assert any("begins again" in warning for warning in warnings)


def test_packets_that_come_twice_cost_a_warning_and_not_the_clip(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "a.ts", frames=50, options={"g": "10"}).read_bytes()
    middle = len(whole) // 376 * 188
    for name, data in {
        "twice": whole[:middle] + whole[middle - 40 * 188 : middle] + whole[middle:],
        "headless": whole[30 * 188 + 77 :],
        "hole": whole[:middle] + whole[middle + 1000 :],
    }.items():
        source = tmp_path / f"{name}.ts"
        source.write_bytes(data)
        for suffix in (".mkv", ".mp4"):
            seen, _ = done(source, tmp_path / f"{name}_out{suffix}", *QUICK)
            assert len(seen.times) > 20
            assert all(later >= sooner for sooner, later in zip(seen.times, seen.times[1:], strict=False))


@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.integers(0, 30))
def test_time_runs_on_behind_every_joint_by_the_same_for_all_tracks(counts: list[int], delay: int) -> None:
    """Parts of whole seconds; the second track lags behind the first by less than a frame."""
    joints, step = Joints(), Fraction(1, 25)
    shifts: list[list[Fraction]] = [[], []]
    for seconds in counts:
        for track in (0, 1):
            for index in range(25 * seconds):
                time = index * step + Fraction(delay, 1000) * track
                shifts[track].append(joints.shift(track, time, step=step))
    assert shifts[0] == shifts[1]
    shown = [index for seconds in counts for index in range(25 * seconds)]
    times = [place * step + shift for place, shift in zip(shown, shifts[0], strict=True)]
    assert times == [index * step for index in range(len(times))]


def test_one_time_out_of_place_moves_itself_alone() -> None:
    joints = Joints()
    times = [Fraction(index, 25) for index in range(100)]
    times[50] = Fraction(0)
    shifts = [joints.shift(0, time, step=Fraction(1, 25)) for time in times]
    assert [place for place, shift in enumerate(shifts) if shift] == [50]


def test_a_gap_stays_a_gap() -> None:
    joints = Joints()
    assert [joints.shift(0, Fraction(time), step=Fraction(1, 25)) for time in (0, 1, 700, 701)] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("code", "frames", "rate", "wanted"),
    [
        ("10:00:00:00", 25, "25", "10:00:01:00"),
        ("00:59:59:24", 1, "25", "01:00:00:00"),
        ("23:59:59:23", 2, "24000/1001", "00:00:00:01"),
        ("01:00:59;29", 1, "30000/1001", "01:01:00;02"),
        ("01:09:59;29", 1, "30000/1001", "01:10:00;00"),
        ("00:00:00;00", 17982, "30000/1001", "00:10:00;00"),
        ("00:00:59;59", 1, "60000/1001", "00:01:00;04"),
        ("01:00:59:29", 1, "30000/1001", "01:01:00:00"),  # a colon: no number is left out
        ("no time code", 1, "25", "no time code"),
        ("10:00:00:40", 1, "25", "10:00:00:40"),  # no second has such a frame
    ],
)
def test_a_time_code_moves_by_frames(code: str, frames: int, rate: str, wanted: str) -> None:
    assert moved_timecode(code, frames, Fraction(rate)) == wanted


@given(st.integers(0, 30 * 86400 // 2), st.integers(0, 200_000))
def test_a_time_code_that_drops_numbers_moves_in_steps_as_at_once(first: int, second: int) -> None:
    rate = Fraction(30000, 1001)
    once = moved_timecode("00:00:00;00", first + second, rate)
    assert moved_timecode(moved_timecode("00:00:00;00", first, rate), second, rate) == once
    _, minutes, rest = once.split(":")
    assert not (rest in ("00;00", "00;01") and int(minutes) % 10), "these numbers are dropped"


@pytest.mark.parametrize(("start", "wanted"), [(None, "10:00:00:00"), ("1", "10:00:01:00"), ("0.9", "10:00:00:23")])
def test_the_time_code_is_that_of_the_first_frame_shown(tmp_path: Path, start: str | None, wanted: str) -> None:
    source = make_clip(tmp_path / "a.mov", frames=50, tags={"timecode": "10:00:00:00"})
    seen, warnings = done(source, tmp_path / "b.mov", *QUICK, *(() if start is None else ("--start", start)))
    with av.open(str(tmp_path / "b.mov")) as clip:
        codes = {stream.metadata["timecode"] for stream in clip.streams if "timecode" in stream.metadata}
    assert codes == {wanted}
    assert seen.kinds.count("data") == 1
    assert warnings == []


def test_sound_stays_in_step_where_a_part_begins_between_the_ticks_of_a_film(tmp_path: Path) -> None:
    source = make_clip(
        tmp_path / "a.avi", frames=30, rate=Fraction(10), time_base=Fraction(1, 10), codec="mpeg4", sound="mp3"
    )
    before, (after, _) = see(source), done(source, tmp_path / "b.mkv", *QUICK, "--start", "0.95")
    first, *_ = after.packets.values()
    (sounds,) = before.packets.values()
    place = next(index for index, (_, data) in enumerate(sounds) if data == first[0][1])
    # The first frame shown is that of 1.0 seconds, so what was heard then is heard at 0.
    assert float(sounds[place][0] - first[0][0]) == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("name", ["10:11:12.mp4", "file:a.mp4", "http:b.mp4", "pipe:0.mp4"])
def test_a_colon_in_a_name_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make_clip(tmp_path / "a.mp4", frames=3).rename(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    seen, _ = done(Path(name), Path(f"out:{name}"), *QUICK)
    assert len(seen.times) == 3


@pytest.mark.parametrize(("sound", "suffix"), [("pcm_s16le", ".flv"), ("libopus", ".mov"), ("flac", ".mov")])
def test_sound_that_a_container_cannot_hold_after_all_is_left_out_and_said(
    tmp_path: Path, sound: str, suffix: str
) -> None:
    source = make_clip(tmp_path / "a.mkv", frames=5)
    with av.open(str(tmp_path / "b.mkv"), "w") as output, av.open(str(source)) as given:
        film = output.add_stream_from_template(given.streams.video[0])
        hum = output.add_stream(sound, rate=48000)
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = film
                output.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 9600), np.int16), format="s16", layout="stereo")
        frame.sample_rate, frame.pts = 48000, 0
        resampler = av.AudioResampler(hum.codec_context.format.name, "stereo", 48000)
        output.mux([packet for each in resampler.resample(frame) for packet in hum.encode(each)])
        output.mux(hum.encode(None))
    seen, warnings = done(tmp_path / "b.mkv", tmp_path / f"c{suffix}", *QUICK)
    assert len(seen.times) == 5
    assert "audio" not in seen.kinds
    assert any("sound" in warning and "left out" in warning for warning in warnings)


def test_twelve_bits_and_the_colours_of_every_pixel_are_kept_where_the_encoder_can(tmp_path: Path) -> None:
    deep = make_clip(tmp_path / "a.mp4", frames=3, codec="libx265", pixel_format="yuv422p12le", sound=None)
    assert done(deep, tmp_path / "b.mp4")[0].pixel_format == "yuv422p12le"
    assert done(deep, tmp_path / "c.mp4", "--codec", "h264", *QUICK)[0].pixel_format == "yuv422p10le"
    colours = make_clip(tmp_path / "d.mov", frames=3, codec="qtrle", pixel_format="rgb24", sound=None)
    seen, warnings = done(colours, tmp_path / "e.mov", *QUICK)
    assert seen.pixel_format == "yuv444p"
    assert warnings == ["its qtrle becomes libx264, which loses some of it; see --codec qtrle"]
    kept, warnings = done(colours, tmp_path / "f.mov", "--codec", "qtrle")
    assert (kept.codec, warnings) == ("qtrle", [])
    assert all((one == other).all() for one, other in zip(see(colours).pixels, kept.pixels, strict=True))


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_closed_captions_in_the_film_are_those_of_each_frame(tmp_path: Path, codec: str) -> None:
    source = make_clip(tmp_path / "a.mkv", frames=12, codec="mpeg2video", options={"b": "2M"}, sound=None)
    bare, captioned = tmp_path / "bare.m2v", tmp_path / "b.mpg"
    with av.open(str(source)) as given, av.open(str(bare), "w", format="mpeg2video") as output:
        film = output.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = film
                output.mux(packet)
    captioned.write_bytes(with_captions(bare.read_bytes()))

    def captions(path: Path) -> list[bytes]:
        with av.open(str(path)) as clip:
            return [bytes(frame.side_data[SideData.A53_CC]) for frame in clip.decode(video=0)]

    wanted = captions(captioned)
    assert len(set(wanted)) > 5
    done(captioned, tmp_path / "c.mkv", "--codec", codec)
    assert captions(tmp_path / "c.mkv") == wanted
    _, warnings = done(captioned, tmp_path / "d.mkv", "--codec", "vp9")
    assert any("closed captions" in warning for warning in warnings)


def with_captions(film: bytes) -> bytes:
    """Put user data with captions of its own (ATSC A/53, part 4, table 6.7) before the first slice of each picture."""
    parts = film.split(b"\x00\x00\x01\x00")  # the start code of a picture
    made = [parts[0]]
    for number, part in enumerate(parts[1:]):
        slice_start = part.index(b"\x00\x00\x01\x01")
        pairs = bytes([0xFC, 0x80 | (0x41 + number), 0x80 | 0x41])
        data = b"\x00\x00\x01\xb2GA94\x03" + bytes([0xC0 | 1, 0xFF]) + pairs + b"\xff"
        made.append(part[:slice_start] + data + part[slice_start:])
    return b"\x00\x00\x01\x00".join(made)
