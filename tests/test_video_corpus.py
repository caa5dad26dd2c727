"""Real clips of every kind, seen before and after by ffprobe, which knows nothing of us."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lowlight_cli.cli import app
from lowlight_cli.settings import DEFAULT_MODEL

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "video"
CLIPS = sorted(path for path in SHARED.rglob("*") if path.suffix not in (".md", ".tsv") and path.is_file())

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not CLIPS, reason="the shared clips are not beside this checkout"),
    pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe"),
]

# What holds no film that can be decoded, or is HDR of the kind that is refused.
REFUSED = {
    "sample_ac3.mp4": "only audio",
    "sample_opus.mp4": "only audio",
    "mp4-with-audio.mp4": "only audio",
    "sample_with_colr_mdcv_and_clli.mp4": "HDR",
    "video_colr_nclx_hdr10.mp4": "HDR",
    "Mpeg4.mp4": "no track",
    "invalid-bitstream.webm": "no frame",
    "test_case_1185230.mp4": "no frame",
    "bipbop_480wp_1001kbps-cenc-video-key1-init.mp4": "no frame",
    "bipbop_nonfragment_header.mp4": "no frame",
    "WindowsMediaVideo.wmv": "no frame",
    "issue_2366_poc.mp4": "not a clip",
    "issue_ghsa_g9xm_7538_mq8w_poc.mov": "not a clip",
    "result.webm": "it is empty",
    "chunk_out_of_range.mp4": "not a clip",
}


@cache
def probed(path: Path) -> dict[str, list[dict[str, object]]]:
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(path)]
    answer: dict[str, list[dict[str, object]]] = json.loads(subprocess.run(command, capture_output=True).stdout)
    return answer


def packets_of(path: Path, stream: int) -> list[tuple[float, float]]:
    """Return when the stream's frames are shown or heard and for how long, in seconds, in order."""
    command = ["ffprobe", "-v", "error", "-select_streams", str(stream), "-show_entries",
               "packet=pts_time,duration_time,flags", "-of", "csv=p=0", str(path)]  # fmt: skip
    lines = subprocess.run(command, capture_output=True, text=True).stdout.split()
    fields = [line.split(",") for line in lines]
    return sorted((float(at), 0.0 if lasts == "N/A" else float(lasts)) for at, lasts, flags, *_ in fields
                  if at != "N/A" and "D" not in flags)  # fmt: skip


def frames_of(path: Path, stream: int) -> list[float]:
    """Return when the film's frames are shown: some packets hold frames that never are, or that cannot be decoded."""
    command = ["ffprobe", "-v", "error", "-select_streams", str(stream), "-show_entries",
               "frame=best_effort_timestamp_time", "-of", "default=nw=1:nk=1", str(path)]  # fmt: skip
    lines = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return sorted(float(at) for at in lines if at != "N/A")


def times_of(path: Path, stream: int) -> list[float]:
    return [at for at, _ in packets_of(path, stream)]


def streams(path: Path, kind: str) -> list[dict[str, object]]:
    return [one for one in probed(path)["streams"] if one["codec_type"] == kind and not covers(one)]


def covers(stream: dict[str, object]) -> bool:
    return bool(stream["disposition"]["attached_pic"])  # type: ignore[index]


def upright_size(stream: dict[str, object]) -> tuple[int, int]:
    size = int(str(stream["width"])), int(str(stream["height"]))
    turned = [abs(int(side.get("rotation", 0))) in (90, 270) for side in stream.get("side_data_list", [])]  # type: ignore[attr-defined]
    return size[::-1] if any(turned) else size


def video(clip: Path, folder: Path, *arguments: str) -> tuple[int, dict[str, object]]:
    """Run `lowlight video` into a folder; return the exit code and what it told."""
    ran = CliRunner().invoke(app, ["video", str(clip), "-o", f"{folder}/", "--device", "cpu", "--json", *arguments])
    assert "Traceback" not in ran.output
    (told,) = map(json.loads, ran.stdout.splitlines())
    return ran.exit_code, told


def assert_refused(clip: Path, code: int, told: dict[str, object], folder: Path) -> None:
    assert (code, told["status"]) == (1, "failed")
    message = told["error"]["message"]  # type: ignore[index]
    assert REFUSED[clip.name] in message
    assert "\n" not in message
    assert list(folder.iterdir()) == []


def films(clip: Path, result: Path) -> list[dict[str, object]]:
    """Return the film of either: the widest track, as no cover picture is wider."""
    return [max(streams(path, "video"), key=lambda one: int(str(one["width"]))) for path in (clip, result)]


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.name)
def test_a_real_clip_comes_out_whole_or_is_refused_with_a_sentence(clip: Path, tmp_path: Path) -> None:
    code, told = video(clip, tmp_path, "--model", "identity")
    if clip.name in REFUSED:
        assert_refused(clip, code, told, tmp_path)
        return
    assert code == 0, told
    (result,) = tmp_path.iterdir()
    before, after = films(clip, result)
    assert upright_size(after) == upright_size(before)
    assert after["nb_read_frames"] == before["nb_read_frames"] == str(told["frames"])
    for tag in ("color_space", "color_transfer", "color_primaries"):
        # VP8 has one matrix and does not say so; in VP9 it must be said.
        assert after.get(tag) == before.get(tag) or before["codec_name"] == "vp8"
    assert_in_step(clip, before, result, after)


@pytest.mark.parametrize("clip", [clip for clip in CLIPS if clip.name not in REFUSED], ids=lambda path: path.name)
def test_ten_frames_of_a_real_clip_go_through_the_default_network(clip: Path, tmp_path: Path) -> None:
    (before,) = films(clip, clip)[:1]
    shown = frames_of(clip, int(str(before["index"])))
    begins = float(str(probed(clip)["format"].get("start_time", 0)))  # type: ignore[attr-defined]
    end = (shown[9] + shown[10]) / 2 - begins if len(shown) > 10 else float("inf")
    code, told = video(clip, tmp_path, *([] if len(shown) <= 10 else ["--end", f"{end:.6f}"]))
    assert (code, told["model"]) == (0, DEFAULT_MODEL), told
    (result,) = tmp_path.iterdir()
    _, after = films(clip, result)
    assert upright_size(after) == upright_size(before)
    assert after["nb_read_frames"] == str(told["frames"])
    # Two of this clip's frames stand in the wrong order.
    assert told["frames"] == min(10, int(str(before["nb_read_frames"]))) or clip.name == "h264-png.mkv"
    made = times_of(result, int(str(after["index"])))
    assert max(abs((a - shown[0]) - (b - made[0])) for a, b in zip(shown, made, strict=False)) <= 0.02
    for one, other in zip(streams(clip, "audio"), streams(result, "audio"), strict=True):
        heard = [at for at in times_of(clip, int(str(one["index"]))) if at - begins < end]
        kept = times_of(result, int(str(other["index"])))
        assert abs((heard[0] - shown[0]) - (kept[0] - made[0])) <= 0.02
        if one["codec_name"] != "amr_nb":  # whose packets are parted into single frames
            assert len(heard) == len(kept)
            assert abs((heard[-1] - shown[0]) - (kept[-1] - made[0])) <= 0.02


def assert_in_step(clip: Path, before: dict[str, object], result: Path, after: dict[str, object]) -> None:
    """Frames at the same distances from one another and from the sound, within 20 ms; as many sounds."""
    tracks = packets_of(clip, int(str(before["index"]))), packets_of(result, int(str(after["index"])))
    shown = [[at for at, _ in track] for track in tracks]
    zero = [times[0] for times in shown]
    if len(shown[0]) == len(shown[1]):
        off = [abs((a - zero[0]) - (b - zero[1])) for a, b in zip(*shown, strict=True)]
        # Two of this clip's frames stand in the wrong order; the later one is shown right after the other.
        assert max(off) <= (0.02 if clip.name == "h264-png.mkv" else 0.002)
    ends = [at + lasts - start for (at, lasts), start in zip((track[-1] for track in tracks), zero, strict=True)]
    if len(shown[0]) == 1 and not tracks[0][0][1]:  # a single frame that says not how long it lasts
        ends[0] = float(probed(clip)["format"]["duration"])  # type: ignore[call-overload]
    frame = max((b - a for a, b in zip(shown[0], shown[0][1:], strict=False)), default=0.05)
    assert abs(ends[0] - ends[1]) <= frame + 1e-5
    assert len(streams(result, "audio")) == len(streams(clip, "audio"))
    for one, other in zip(streams(clip, "audio"), streams(result, "audio"), strict=True):
        heard = times_of(clip, int(str(one["index"]))), times_of(result, int(str(other["index"])))
        assert abs((heard[0][0] - zero[0]) - (heard[1][0] - zero[1])) <= 0.02
        if one["codec_name"] != "amr_nb":  # whose packets are parted into single frames
            assert abs((heard[0][-1] - zero[0]) - (heard[1][-1] - zero[1])) <= 0.02
