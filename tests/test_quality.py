"""Quality: every method on every pair, as written; a bad picture is a row, and GT-mean keeps its name."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.cli.bench import bench
from lowlight_cli.cli.commands import Command
from lowlight_cli.errors import InputError, LowlightError, SettingsError
from lowlight_cli.images import Picture
from lowlight_cli.metrics import measure_quality
from lowlight_cli.pairs import find_pairs
from lowlight_cli.quality import (
    BASELINES,
    Sample,
    gamma_to_mean,
    load_methods,
    measure_samples,
    samples_of,
    summarise,
    write_quality_sheet,
)


def write(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Three pairs, one of a wrong size, and a dark picture without reference."""
    random = np.random.default_rng(7)
    for number in range(3):
        clean = random.integers(0, 256, (24, 32, 3), np.uint8)
        write(tmp_path / f"high/{number}.png", clean)
        write(tmp_path / f"low/{number}.png", clean[: 24 - number // 2] // 8)
    write(tmp_path / "low/alone.png", random.integers(0, 9, (20, 20, 3), np.uint8))
    return tmp_path / "low", tmp_path / "high"


def test_rows_hold_what_the_metrics_say_of_the_files(folders: tuple[Path, Path]) -> None:
    low, high = folders
    rows = list(measure_samples(samples_of(find_pairs(low, high)), BASELINES))
    assert [(row.sample.name, row.method) for row in rows] == [
        (name, method) for name in ("0", "1", "2", "alone") for method in ("input", "gamma")
    ]
    as_tensor = [torch.tensor(np.asarray(Image.open(side / "0.png"))).permute(2, 0, 1) / 255 for side in folders]
    assert rows[0].quality == measure_quality(*as_tensor)
    assert isinstance(rows[4].error, InputError)
    assert "32x23" in str(rows[4].error)
    assert rows[6].quality is None
    assert rows[6].error is None
    assert 0 < rows[6].mean < 0.05


def test_a_method_that_fails_fails_alone(folders: tuple[Path, Path]) -> None:
    def broken(picture: Picture) -> Picture:
        raise InputError("no")

    low, high = folders
    (low / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n cut off")
    rows = list(measure_samples(samples_of(find_pairs(low, high)), {"broken": broken, **BASELINES}))
    by_name = {(row.sample.name, row.method): row for row in rows}
    assert all(by_name["0", method].error for method in ("broken", "input", "gamma"))
    assert by_name["1", "broken"].error
    assert by_name["1", "input"].quality
    failed = {summary.method: (summary.pairs, summary.failed) for summary in summarise(rows)}
    assert failed == {"broken": (0, 4), "input": (1, 2), "gamma": (1, 2)}


def test_summaries_are_means_over_the_pairs(folders: tuple[Path, Path]) -> None:
    low, high = folders
    rows = list(measure_samples(samples_of(find_pairs(low, high)), BASELINES))
    first, gamma = summarise(rows)
    measured = [row.quality for row in rows if row.method == "input" and row.quality]
    assert (first.method, first.pairs, gamma.method) == ("input", 2, "gamma")
    assert first.quality
    assert first.quality.psnr == pytest.approx(sum(each.psnr for each in measured) / 2)


def test_the_gamma_baseline_takes_a_picture_to_its_mean() -> None:
    dark = np.random.default_rng(0).gamma(2, 10, (64, 64, 3)).clip(0, 255).astype(np.uint8)
    assert gamma_to_mean(Picture(dark)).pixels.mean() == pytest.approx(0.45 * 255, abs=0.2)
    flat = Picture(np.full((4, 4, 3), 20, np.uint8))
    assert gamma_to_mean(flat).pixels.tolist() == np.full((4, 4, 3), round(0.45 * 255), np.uint8).tolist()
    for extreme in (0, 255):
        same = Picture(np.full((4, 4, 3), extreme, np.uint8))
        assert (gamma_to_mean(same).pixels == extreme).all()


def test_further_scores_are_taken_where_they_can_be(folders: tuple[Path, Path]) -> None:
    scores = {
        "peak": lambda image, _: float(image.max()),
        "error": lambda image, reference: None if reference is None else float((image - reference).abs().mean()),
    }
    low, high = folders
    rows = list(measure_samples(samples_of(find_pairs(low, high)), {"input": BASELINES["input"]}, scores=scores))
    assert set(rows[0].scores) == {"peak", "error"}
    assert set(rows[3].scores) == {"peak"}
    (summary,) = summarise(rows)
    assert summary.scores["peak"] == pytest.approx((rows[0].scores["peak"] + rows[1].scores["peak"]) / 2)


def test_json_has_no_infinities_and_names_errors(folders: tuple[Path, Path]) -> None:
    low, high = folders
    samples = [Sample("same", high / "0.png", high / "0.png"), Sample("gone", low / "gone.png", high / "0.png")]
    same, gone = (row.as_json() for row in measure_samples(samples, {"input": BASELINES["input"]}))
    assert (same["psnr"], same["ssim"], same["psnr_gt_mean"]) == (None, pytest.approx(1), None)
    assert isinstance(gone["error"], dict)
    assert gone["error"]["code"] == "input"
    json.dumps([same, gone], allow_nan=False)


def test_the_sheet_shows_a_line_for_each_pair(folders: tuple[Path, Path], tmp_path: Path) -> None:
    low, high = folders
    rows = list(measure_samples(samples_of(find_pairs(low, high)), BASELINES, thumbnail_side=32))
    target = tmp_path / "sheet.png"
    write_quality_sheet(target, rows)
    sheet = np.asarray(Image.open(target))
    reference = np.asarray(Image.open(high / "0.png"))
    assert (sheet[6:30, 6 + 2 * 38 : 38 + 2 * 38] == reference).all()
    heights = [24, 24, 0, 20]  # the third pair failed, the fourth picture is smaller
    assert sheet.shape == (6 + sum(height + 20 + 6 for height in heights), 6 + 3 * (32 + 6), 3)
    with pytest.raises(LowlightError, match="exists"):
        write_quality_sheet(target, rows)


def test_methods_are_the_baselines_and_the_models(folders: tuple[Path, Path]) -> None:
    methods = load_methods(["identity"])
    assert list(methods) == ["input", "gamma", "identity"]
    low, high = folders
    rows = list(measure_samples([Sample("0", low / "0.png", high / "0.png")], methods))
    assert rows[0].quality == rows[2].quality


# The command.

app = typer.Typer()
app.command(cls=Command)(bench)


def run(*arguments: str | Path) -> tuple[int, str, BaseException | None]:
    result = CliRunner().invoke(app, [str(each) for each in arguments])
    return result.exit_code, result.stdout, result.exception


def test_bench_prints_a_table_that_names_gt_mean(folders: tuple[Path, Path], tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    code, out, _ = run("--pairs", *folders, "--model", "identity", "--sheet", sheet)
    lines = out.splitlines()
    assert code == 1  # one pair is of two sizes
    assert "PSNR GT-mean" in lines[0]
    assert "SSIM GT-mean" in lines[0]
    assert [line.split()[3] for line in lines[-3:]] == ["input", "gamma", "identity"]
    assert all(line.startswith("mean of 2") for line in lines[-3:])
    assert sheet.exists()


def test_bench_is_told_rates_that_weights_do_not_tell(folders: tuple[Path, Path], tmp_path: Path) -> None:
    weights = tmp_path / "mine.pt"
    torch.save(DarkIR(width=4, dilations=(1, 2)).state_dict(), weights)
    _, _, refusal = run("--pairs", *folders, "--weights", weights)
    assert "give --dilations" in str(refusal)
    _, out, _ = run("--pairs", *folders, "--weights", weights, "--dilations", "1,2", "--tile", "0")
    assert out.splitlines()[-1].startswith("mean of 2")


def test_bench_prints_json_lines(folders: tuple[Path, Path]) -> None:
    low, high = folders
    (low / "2.png").unlink()
    code, out, _ = run("--pairs", low, high, "--model", "identity", "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [each["kind"] for each in objects] == ["sample"] * 9 + ["summary"] * 3
    assert all(each["schema"] == 1 for each in objects)
    assert {"psnr", "ssim", "psnr_gt_mean", "ssim_gt_mean", "seconds"} <= objects[0].keys()
    assert math.isfinite(objects[-1]["psnr"])


def test_bench_names_references_that_nothing_is_compared_with(folders: tuple[Path, Path]) -> None:
    low, high = folders
    for number in range(3, 7):
        write(high / f"{number}.png", np.zeros((8, 8, 3), np.uint8))
    result = CliRunner().invoke(app, ["--pairs", str(low), str(high), "--model", "identity"])
    told = [line for line in result.stderr.splitlines() if line.startswith("left out")]
    assert told == [
        *(f"left out: {high / f'{number}.png'}: no dark picture has its name" for number in (3, 4, 5)),
        "left out in all: 4 references",
    ]


@pytest.mark.parametrize(
    "wrong", [["--split", "dev"], ["--model", "none"], ["--precision", "fp8"], ["--score", "fid"], ["--tile", "x"]]
)
def test_bench_refuses_wrong_use_before_work(folders: tuple[Path, Path], wrong: list[str]) -> None:
    code, out, error = run("--pairs", *folders, *wrong)
    assert isinstance(error, SettingsError)
    assert (code, out) == (1, "")  # the boundary that makes it 2 is the whole command line's


def test_bench_does_not_replace_a_sheet_unless_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    sheet.write_bytes(b"mine")
    _, _, error = run("--pairs", *folders, "--model", "identity", "--sheet", sheet)
    assert isinstance(error, SettingsError)
    assert sheet.read_bytes() == b"mine"
    run("--pairs", *folders, "--model", "identity", "--sheet", sheet, "--overwrite")
    assert sheet.read_bytes().startswith(b"\x89PNG")


def test_a_report_names_the_precision_that_was_computed_in(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)  # so the CPU has no bf16
    page = tmp_path / "r.html"
    run("--pairs", *folders, "--device", "cpu", "--precision", "bf16", "--report", page)
    assert ", fp32" in page.read_text("utf-8")
    assert ", bf16" not in page.read_text("utf-8")
