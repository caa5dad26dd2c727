"""Real clips of every kind, seen before and after by ffprobe, which knows nothing of us."""

import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lowlight_cli.cli import app

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
    "result.webm": "not a clip",
    "chunk_out_of_range.mp4": "not a clip",
}


@cache
def probed(path: Path) -> dict[str, list[dict[str, object]]]:
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-show_format", "-of", "json", str(path)]
    answer: dict[str, list[dict[str, object]]] = json.loads(subprocess.run(command, capture_output=True).stdout)
    return answer


def times_of(path: Path, stream: int) -> list[float]:
    """Return when the stream's frames are shown or heard, in seconds."""
    command = ["ffprobe", "-v", "error", "-select_streams", str(stream), "-show_entries", "packet=pts_time,flags",
               "-of", "csv=p=0", str(path)]  # fmt: skip
    lines = subprocess.run(command, capture_output=True, text=True).stdout.split()
    return sorted(float(line.split(",")[0]) for line in lines if line[0] != "N" and "D" not in line)


def streams(path: Path, kind: str) -> list[dict[str, object]]:
    return [one for one in probed(path)["streams"] if one["codec_type"] == kind and not covers(one)]


def covers(stream: dict[str, object]) -> bool:
    return bool(stream["disposition"]["attached_pic"])  # type: ignore[index]


def upright_size(stream: dict[str, object]) -> tuple[int, int]:
    size = int(str(stream["width"])), int(str(stream["height"]))
    turned = [abs(int(side.get("rotation", 0))) in (90, 270) for side in stream.get("side_data_list", [])]  # type: ignore[attr-defined]
    return size[::-1] if any(turned) else size


@pytest.mark.parametrize("clip", CLIPS, ids=lambda path: path.name)
def test_a_real_clip_comes_out_whole_or_is_refused_with_a_sentence(clip: Path, tmp_path: Path) -> None:
    arguments = [
        "video",
        str(clip),
        "-o",
        f"{tmp_path}/",
        "--model",
        "identity",
        "--device",
        "cpu",
        "--no-stabilize-light",
        "--json",
    ]
    ran = CliRunner().invoke(app, arguments)
    (told,) = map(json.loads, ran.stdout.splitlines())
    assert "Traceback" not in ran.output
    if clip.name in REFUSED:
        assert (ran.exit_code, told["status"]) == (1, "failed")
        assert REFUSED[clip.name] in told["error"]["message"]
        assert list(tmp_path.iterdir()) == []
        return
    assert ran.exit_code == 0, told
    (result,) = tmp_path.iterdir()
    before = max(streams(clip, "video"), key=lambda one: int(str(one["width"])))
    after = max(streams(result, "video"), key=lambda one: int(str(one["width"])))
    assert upright_size(after) == upright_size(before)
    assert after["nb_read_frames"] == before["nb_read_frames"] == str(told["frames"])
    for tag in ("color_space", "color_transfer", "color_primaries"):
        # VP8 has one matrix and does not say so; in VP9 it must be said.
        assert after.get(tag) == before.get(tag) or before["codec_name"] == "vp8"
    assert_in_step(clip, before, result, after)


def assert_in_step(clip: Path, before: dict[str, object], result: Path, after: dict[str, object]) -> None:
    """Frames at the same distances from one another and from the sound, within 20 ms; as many sounds."""
    shown = times_of(clip, int(str(before["index"]))), times_of(result, int(str(after["index"])))
    zero = [times[0] for times in shown]
    if len(shown[0]) == len(shown[1]):
        off = [abs((a - zero[0]) - (b - zero[1])) for a, b in zip(*shown, strict=True)]
        # Two of this clip's frames stand in the wrong order; the later one is shown right after the other.
        assert max(off) <= (0.02 if clip.name == "h264-png.mkv" else 0.002)
    assert len(streams(result, "audio")) == len(streams(clip, "audio"))
    for one, other in zip(streams(clip, "audio"), streams(result, "audio"), strict=True):
        heard = times_of(clip, int(str(one["index"]))), times_of(result, int(str(other["index"])))
        assert abs((heard[0][0] - zero[0]) - (heard[1][0] - zero[1])) <= 0.02
        if one["codec_name"] != "amr_nb":  # whose packets are parted into single frames
            assert abs((heard[0][-1] - zero[0]) - (heard[1][-1] - zero[1])) <= 0.02
