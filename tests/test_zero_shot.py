"""Zero-shot fits: exact numbers of steps, the same bytes, sane results for odd photos, and files kept whole."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st
from ordinaryuser import as_an_ordinary_user
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner, Result

from lowlight_cli.backends.zeroig.losses import zero_shot_loss
from lowlight_cli.backends.zeroig.network import ZeroIG, load_network
from lowlight_cli.batch import BatchSettings
from lowlight_cli.cli import app
from lowlight_cli.errors import NumericsError, OutputError, ResourceError, SettingsError, WeightsError
from lowlight_cli.images import Picture
from lowlight_cli.manifest import read_manifest
from lowlight_cli.paths import plan_jobs
from lowlight_cli.results import FileResult
from lowlight_cli.settings import Compute, Encoding
from lowlight_cli.tiling import TensorSource
from lowlight_cli.tone import to_encoded, to_linear
from lowlight_cli.weights_file import WeightsFile, read_weights
from lowlight_cli.zero_shot import files as zero_shot_files
from lowlight_cli.zero_shot.files import ZeroShotFiles, _free
from lowlight_cli.zero_shot.finish import finished
from lowlight_cli.zero_shot.fit import INITIAL_WEIGHTS, Fit, Step, exposure_gain
from lowlight_cli.zero_shot.pretrain import Pretraining, draw_batch
from lowlight_cli.zero_shot.settings import Keep, ZeroShot

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
NOTHING = Keep()


def scene(height: int = 40, width: int = 44) -> Tensor:
    """A well-lit picture of soft shapes, `(1, 3, height, width)`."""
    rows = torch.linspace(0, 5, height)[:, None]
    columns = torch.linspace(0, 7, width)[None]
    planes = [0.5 + 0.4 * torch.sin(rows * (1 + index / 3)) * torch.cos(columns + index) for index in range(3)]
    return torch.stack(planes)[None]


def darkened(picture: Tensor, gain: float = 60.0) -> Tensor:
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(1)) * 0.004
    return ((to_encoded(to_linear(picture) / gain) + noise).clamp(0, 1) * 255).round() / 255


def fitted(photo: Tensor, settings: ZeroShot, initial: WeightsFile | None = None) -> dict[str, Tensor]:
    fit = Fit([TensorSource(photo)], settings, initial=initial)
    for _ in fit.run():
        pass
    return fit.state_dict()


def result_of(state: dict[str, Tensor], photo: Tensor) -> Tensor:
    with torch.no_grad():
        return load_network(state)(photo).denoised


def psnr(result: Tensor, reference: Tensor) -> float:
    return -10 * (result - reference).square().mean().log10().item()


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_epochs_is_the_exact_number_of_steps(preset):
    fit = Fit([TensorSource(darkened(scene()))], ZeroShot(preset, epochs=7))
    assert [step.step for step in fit.run()] == [1, 2, 3, 4, 5, 6, 7]


def test_paper_takes_the_published_steps_from_the_published_start():
    photo = darkened(scene(24, 26))
    torch.manual_seed(2)
    network = ZeroIG().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4, weight_decay=3e-4)
    expected = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = zero_shot_loss(network, photo)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        expected.append(loss.item())
    fit = Fit([TensorSource(photo)], ZeroShot("paper", epochs=3))
    assert [step.loss for step in fit.run()] == pytest.approx(expected, rel=1e-4)
    assert ZeroShot("paper").steps == 2000


@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(preset):
    photo = darkened(scene(70, 80)) if preset == "fast" else darkened(scene(20, 20))
    first, again, other = (fitted(photo, ZeroShot(preset, epochs=2, seed=seed)) for seed in (2, 2, 3))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_the_fit_does_not_touch_the_callers_random_numbers():
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    fitted(darkened(scene(20, 20)), ZeroShot("paper", epochs=1))
    assert torch.equal(torch.rand(3), wanted)


def test_a_fit_can_be_left_at_any_step_and_its_state_is_ordinary_weights():
    photo = darkened(scene())
    fit = Fit([TensorSource(photo)], ZeroShot())
    steps = fit.run()
    before = result_of(fit.state_dict(), photo)
    for _ in range(3):
        next(steps)
    steps.close()
    assert not torch.equal(result_of(fit.state_dict(), photo), before)


def test_the_fit_finds_the_exposure_that_the_start_cannot_know():
    reference = scene(32, 32)
    photo = darkened(reference)
    start = Fit([TensorSource(photo)], ZeroShot()).state_dict()
    after = fitted(photo, ZeroShot(epochs=60))
    assert psnr(result_of(after, photo), reference) > psnr(result_of(start, photo), reference) + 3


def test_fast_stops_when_its_loss_is_flat():
    black = torch.zeros(1, 3, 16, 16)
    steps = [step.step for step in Fit([TensorSource(black)], ZeroShot()).run()]
    assert 80 <= steps[-1] <= ZeroShot().steps


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 3), (16, 15), (3, 2000)])
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_the_smallest_photos_are_fitted_too(preset, size):
    photo = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0)) * 0.1
    assert result_of(fitted(photo, ZeroShot(preset, epochs=2)), photo).isfinite().all()


def test_black_stays_dark_and_white_stays_white():
    for level, most_off in ((0.0, 0.05), (1.0, 0.06)):
        photo = torch.full((1, 3, 16, 16), level)
        assert (result_of(fitted(photo, ZeroShot(epochs=30)), photo) - level).abs().mean() < most_off


def test_a_bright_photo_stays_nearly_as_it_is():
    photo = (scene(28, 28) * 0.9 + 0.1).clamp(0, 1)
    assert psnr(result_of(fitted(photo, ZeroShot(epochs=60)), photo), photo) > 25


@example_settings(max_examples=20)
@given(stops=st.floats(0, 8))
def test_the_exposure_gain_undoes_the_darkness_and_changes_smoothly(stops: float):
    def lifted_mean(darkness: float) -> float:
        photo = to_encoded(to_linear(scene()) / 2**darkness)
        lifted = to_encoded((to_linear(photo) * exposure_gain(TensorSource(photo))).clamp(0, 1))
        return lifted.mean().item()

    assert lifted_mean(stops) > 0.3
    assert abs(lifted_mean(stops) - lifted_mean(stops + 0.1)) < 0.04


def test_a_well_lit_photo_gets_no_gain():
    assert exposure_gain(TensorSource(scene())) == 1.0


def test_a_broken_fit_says_so():
    photo = darkened(scene(20, 20))
    state = ZeroIG().state_dict()
    state["denoise_1.conv3.bias"] = torch.full((3,), 3e38)
    with pytest.raises(NumericsError, match="step 1"):
        fitted(photo, ZeroShot("paper", epochs=2), WeightsFile(state, {}, ""))


def test_weights_of_another_network_are_refused():
    with pytest.raises(WeightsError, match=r"enhance\.in_conv.*intro\.weight"):
        Fit([], ZeroShot(), initial=WeightsFile({"intro.weight": torch.zeros(1)}, {}, ""))


def test_paper_refuses_a_photo_that_memory_cannot_hold():
    class Huge:
        height, width = 100_000, 100_000

        def read(self, rows: slice, columns: slice) -> Tensor:
            raise AssertionError("nothing is read before the refusal")

    with pytest.raises(ResourceError, match="--preset fast"):
        next(Fit([Huge()], ZeroShot("paper")).run())


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"lr": 0.0}, {"lr": 2.0}])
def test_settings_that_cannot_be_meant_are_refused(wrong):
    with pytest.raises(SettingsError):
        ZeroShot(**wrong)


def test_the_embedded_start_says_what_it_is():
    held = read_weights(INITIAL_WEIGHTS)
    assert held.metadata["backend"] == "zeroig"
    load_network(held.tensors)
    assert INITIAL_WEIGHTS.stat().st_size < 500_000
    entry = read_manifest()["zeroig-initial"]
    assert (entry.backend, entry.embedded, entry.bytes, entry.sha256) == (
        "zeroig",
        True,
        INITIAL_WEIGHTS.stat().st_size,
        held.sha256,
    )
    assert INITIAL_WEIGHTS.with_suffix(".md").exists()


def clean_photos() -> list[np.ndarray]:
    return [(scene(80, 90)[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)]


def test_pretraining_gives_the_same_bytes_again_and_weights_that_a_fit_can_start_from():
    first, again = (Pretraining(clean_photos(), steps=2) for _ in range(2))
    assert list(first.run()) == list(again.run())
    state = first.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in again.state_dict().items())
    fitted(darkened(scene(20, 20)), ZeroShot(epochs=1), WeightsFile(state, {}, ""))


def test_a_pretraining_pair_is_the_same_scene_but_for_noise():
    batch = draw_batch(clean_photos(), np.random.default_rng(0))
    assert batch.low.shape == batch.clean.shape == (8, 3, 64, 64)
    assert (batch.gain >= 1).all()
    means = torch.stack([batch.low.mean(dim=(1, 2, 3)), batch.clean.mean(dim=(1, 2, 3))])
    assert (means[0] - means[1]).abs().max() < 0.05
    assert not torch.equal(batch.low, batch.clean)


def test_pretraining_without_photos_is_refused():
    with pytest.raises(SettingsError, match="64x64"):
        Pretraining([np.zeros((63, 200, 3), np.uint8)])


def save_photo(path: Path, photo: Tensor) -> Path:
    Image.fromarray((photo[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(path)
    return path


def run_files(
    folder: Path, settings: ZeroShot, keep: Keep = NOTHING, *, shared: bool = False
) -> tuple[list[Step], list[FileResult]]:
    variants = ["enhanced"] if keep.save == "both" else []
    plan = plan_jobs([str(folder)], variants=variants)
    files = ZeroShotFiles(settings, batch=BatchSettings(encoding=Encoding()), keep=keep, compute=Compute("cpu"))
    events = list(files.run(plan.jobs, shared=shared))
    return [each for each in events if isinstance(each, Step)], [e for e in events if isinstance(e, FileResult)]


def test_everything_that_is_kept_of_a_fit_is_whole(tmp_path: Path):
    folder = tmp_path / "in"
    folder.mkdir()
    save_photo(folder / "night.png", darkened(scene()))
    keep = Keep(
        save="both",
        weights=tmp_path / "w.safetensors",
        log=tmp_path / "fit.jsonl",
        preview_every=5,
        preview_folder=tmp_path / "previews",
    )
    steps, [result] = run_files(folder, ZeroShot(epochs=10), keep)
    assert result.status == "done"
    assert sorted(path.name for path in folder.iterdir()) == [
        "night.png",
        "night_lowlight.png",
        "night_lowlight_enhanced.png",
    ]
    assert sorted(path.name for path in (tmp_path / "previews").iterdir()) == [
        "night_lowlight.step10.png",
        "night_lowlight.step5.png",
    ]
    lines = [json.loads(line) for line in (tmp_path / "fit.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in lines] == [step.loss for step in steps]
    assert len(lines[4]["terms"]) == 7
    with Image.open(tmp_path / "fit_loss.png") as curve:
        assert np.unique(np.asarray(curve)).size > 3
    state = load_file(tmp_path / "w.safetensors")
    with Image.open(folder / "night.png") as photo, Image.open(folder / "night_lowlight.png") as bright:
        low = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None].float() / 255
        again = result_of(state, low)[0].permute(1, 2, 0).mul(255)
        assert np.abs(np.asarray(bright, dtype=float) - again.numpy()).max() <= 0.51


def zero_shot(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["zero-shot", *map(str, arguments), "--epochs", "2", "--device", "cpu"])


def test_every_result_of_a_photo_gets_its_times_on_request(tmp_path: Path):
    photo = save_photo(tmp_path / "night.png", darkened(scene()))
    os.utime(photo, (1_000_000_000, 1_000_000_000))
    assert zero_shot(photo, "--save", "both", "--compare", "--preserve-times").exit_code == 0
    assert {path.stat().st_mtime for path in tmp_path.iterdir()} == {1_000_000_000}
    assert len(list(tmp_path.iterdir())) == 4


def test_the_device_is_told_before_the_fit(tmp_path: Path):
    ran = zero_shot(save_photo(tmp_path / "night.png", darkened(scene())))
    first = ran.stderr.splitlines()[0]
    assert first.startswith("zeroig-fitted on ")
    assert first.endswith(", fp32")


def test_records_of_a_fit_lie_beside_the_photo_and_never_over_it(tmp_path: Path):
    photo = save_photo(tmp_path / "night.png", darkened(scene()))
    before = photo.read_bytes()
    ran = zero_shot(photo, "--log", tmp_path / "night.jsonl", "--save-weights", tmp_path / "night.safetensors")
    assert ran.exit_code == 0, ran.output
    assert {path.name for path in tmp_path.iterdir()} == {
        "night.png", "night_lowlight.png", "night.jsonl", "night_loss.png", "night.safetensors"
    }  # fmt: skip
    assert photo.read_bytes() == before


@pytest.mark.parametrize(
    "records",
    [
        ("--save-weights", "night.png"),
        ("--save-weights", "link.png"),
        ("--log", "night.png"),
        ("--log", "night_lowlight.png"),
        ("--save-weights", "sub.safetensors"),
        ("--save-weights", "photo.jpg"),
        ("--save-weights", "night.pt"),
        ("--save-weights", "link.safetensors"),
        ("--log", "photo.jpg"),
        ("--log", "link.json"),
        ("--log", "night.jsonl", "-o", "night_loss.png"),
        ("--log", "night.png/fit.jsonl"),
    ],
)
def test_records_that_would_cost_a_picture_are_refused_before_the_fit(tmp_path: Path, monkeypatch, records):
    monkeypatch.chdir(tmp_path)
    photo = save_photo(tmp_path / "night.png", darkened(scene()))
    (tmp_path / "sub.safetensors").mkdir()
    for name in ("link.png", "link.safetensors", "link.json"):
        (tmp_path / name).symlink_to(photo)
    save_photo(tmp_path / "photo.png", darkened(scene())).rename(tmp_path / "photo.jpg")
    before, photograph = photo.read_bytes(), (tmp_path / "photo.jpg").read_bytes()
    ran = zero_shot("night.png", *records, "--overwrite")
    assert ran.exit_code == 2, ran.output
    assert len(ran.stderr.strip().splitlines()) == 1
    assert (photo.read_bytes(), (tmp_path / "photo.jpg").read_bytes()) == (before, photograph)
    assert not (tmp_path / "night_lowlight.png").exists()


def test_a_record_that_cannot_be_written_costs_no_picture(tmp_path: Path):
    photo, full = save_photo(tmp_path / "night.png", darkened(scene())), tmp_path / "w.safetensors"
    full.symlink_to("/dev/full")
    ran = zero_shot(photo, "--save-weights", full, "--overwrite")
    assert ran.exit_code == 1, ran.output
    assert "full" in ran.stderr
    assert (tmp_path / "night_lowlight.png").exists()


@pytest.mark.parametrize("option", [("-o", "n.png"), ("--save-weights", "w.safetensors"), ("--log", "new/fit.jsonl"),
                                    ("--preview-every", "1", "--preview-dir", "new")])  # fmt: skip
def test_a_folder_that_takes_no_files_is_found_before_the_fit(option: tuple[str, ...]):
    with as_an_ordinary_user(), tempfile.TemporaryDirectory() as name:
        photo, closed = save_photo(Path(name) / "x.png", darkened(scene())), Path(name) / "closed"
        closed.mkdir(mode=0o555)
        ran = zero_shot(photo, *option[:-1], closed / option[-1])
        assert sorted(path.name for path in Path(name).rglob("*")) == ["closed", "x.png"]
        closed.chmod(0o700)
    assert ran.exit_code == 1, ran.output
    assert f"cannot write into the folder {closed}: Permission denied" in ran.stderr
    assert "zeroig-fitted" not in ran.stderr


def test_photos_whose_previews_would_share_a_name_are_refused(tmp_path: Path):
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        save_photo(tmp_path / folder / "n.png", darkened(scene()))
    ran = zero_shot(tmp_path / "x", tmp_path / "y", "--preview-every", "1", "--preview-dir", tmp_path / "previews")
    assert ran.exit_code == 2, ran.output
    assert "--preview-dir" in ran.stderr
    assert not (tmp_path / "previews").exists()


def test_records_of_an_earlier_fit_stay_unless_they_may_go(tmp_path: Path):
    photo, log = save_photo(tmp_path / "night.png", darkened(scene())), tmp_path / "fit.jsonl"
    log.write_text("dear")
    ran = zero_shot(photo, "--log", log)
    assert (ran.exit_code, log.read_text()) == (2, "dear")
    assert "--overwrite" in ran.stderr
    assert zero_shot(photo, "--log", log, "--overwrite").exit_code == 0
    assert log.read_text() != "dear"


def test_a_log_grows_with_the_fit_and_goes_with_a_discarded_one(tmp_path: Path):
    photo, log = save_photo(tmp_path / "night.png", darkened(scene())), tmp_path / "fit.jsonl"
    log.write_text("of an earlier fit")
    files = ZeroShotFiles(ZeroShot(epochs=9), batch=BatchSettings(), keep=Keep(log=log), compute=Compute("cpu"))
    events = files.run(plan_jobs([str(photo)]).jobs)
    for number in range(1, 4):
        next(events)
        assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [*range(1, number + 1)]
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert [path.name for path in tmp_path.iterdir()] == ["night.png"]


def test_a_bad_photo_fails_alone_and_a_shared_fit_serves_the_others(tmp_path: Path):
    for name, gain in (("a", 40.0), ("c", 60.0)):
        save_photo(tmp_path / f"{name}.png", darkened(scene(), gain))
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    steps, results = run_files(tmp_path, ZeroShot(epochs=3), shared=True)
    assert len(steps) == 3
    statuses = {Path(each.input).name: each.status for each in results}
    assert statuses == {"a.png": "done", "b.png": "failed", "c.png": "done"}


def test_sixteen_bits_stay_sixteen_bits(tmp_path: Path):
    dark = (darkened(scene())[0, 0] * 65535).round().to(torch.int32).numpy().astype(np.uint16)
    Image.fromarray(dark).save(tmp_path / "deep.png")
    _, [result] = run_files(tmp_path, ZeroShot(epochs=20))
    assert result.status == "done"
    with Image.open(tmp_path / "deep_lowlight.png") as bright:
        values = np.asarray(bright)
    assert values.max() > 255
    assert values.mean() > dark.mean()


def test_the_noise_that_is_left_in_is_that_of_the_picture_before_its_denoising(tmp_path: Path):
    photo, seen = torch.rand(1, 3, 24, 24) * 0.1, {}
    for name, keep in {"noisy": Keep(save="enhanced"), "none": Keep(denoise=0), "half": Keep(denoise=0.5)}.items():
        (tmp_path / name).mkdir()
        save_photo(tmp_path / name / "a.png", photo)
        files = ZeroShotFiles(ZeroShot(epochs=2), batch=BatchSettings(), keep=keep, compute=Compute("cpu"))
        *_, result = files.run(plan_jobs([str(tmp_path / name)]).jobs)
        assert result.status == "done"
        seen[name] = (tmp_path / name / "a_lowlight.png").read_bytes()
    assert seen["noisy"] == seen["none"] != seen["half"]


def test_a_share_of_noise_that_cannot_be_is_refused():
    with pytest.raises(SettingsError, match="--denoise lies between 0 and 1"):
        Keep(denoise=1.5)


def test_an_interrupted_fit_leaves_nothing_or_its_latest_state_under_its_own_name(tmp_path: Path):
    save_photo(tmp_path / "night.png", darkened(scene()))
    for choice, left in (("discard", []), ("save", ["night_lowlight.step2.png"])):
        plan = plan_jobs([str(tmp_path)])
        keep = Keep(on_interrupt=choice)
        files = ZeroShotFiles(ZeroShot(), batch=BatchSettings(), keep=keep, compute=Compute("cpu"))
        events = files.run(plan.jobs)
        next(events), next(events)
        with pytest.raises(KeyboardInterrupt):
            events.throw(KeyboardInterrupt())
        assert sorted(path.name for path in tmp_path.iterdir()) == ["night.png", *left]


def test_an_interrupt_ends_the_work_even_if_the_latest_state_cannot_be_written(tmp_path: Path, monkeypatch):
    for name in ("a.png", "b.png"):
        save_photo(tmp_path / name, torch.rand(1, 3, 16, 16) * 0.1)

    def full(*_: object, **__: object) -> None:
        raise OutputError("no space left")

    monkeypatch.setattr("lowlight_cli.zero_shot.files.write_picture", full)
    plan = plan_jobs([str(tmp_path)])
    keep = Keep(on_interrupt="save")
    files = ZeroShotFiles(ZeroShot("paper", 5), batch=BatchSettings(), keep=keep, compute=Compute("cpu"))
    events = files.run(plan.jobs)
    assert isinstance(next(events), Step)
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    with pytest.raises(StopIteration):
        next(events)


@pytest.mark.parametrize("save", ["denoised", "enhanced", "both"])
def test_previews_and_what_an_interrupt_leaves_are_what_would_be_saved(tmp_path: Path, save: str):
    source = tmp_path / "in"
    source.mkdir()
    save_photo(source / "a.png", torch.rand(1, 3, 24, 24) * 0.1)
    keep = Keep(save=save, preview_every=3, preview_folder=tmp_path / "pv", log=tmp_path / "log.jsonl",
                weights=tmp_path / "w.safetensors", on_interrupt="save")  # fmt: skip
    run_files(source, ZeroShot("paper", 3), keep)
    whole = {path.name: path.read_bytes() for path in source.iterdir()}
    assert (tmp_path / "pv" / "a_lowlight.step3.png").read_bytes() == whole["a_lowlight.png"]
    for path in (*source.glob("a_lowlight*"), tmp_path / "log.jsonl", tmp_path / "w.safetensors"):
        path.unlink()
    plan = plan_jobs([str(source)], variants=["enhanced"] if save == "both" else [])
    events = ZeroShotFiles(ZeroShot("paper", 9), batch=BatchSettings(), keep=keep, compute=Compute("cpu")).run(
        plan.jobs
    )
    for _ in range(3):
        next(events)
    with pytest.raises(KeyboardInterrupt):
        events.throw(KeyboardInterrupt)
    assert (source / "a_lowlight.step3.png").read_bytes() == whole["a_lowlight.png"]
    if save == "both":
        assert (source / "a_lowlight.step3_enhanced.png").read_bytes() == whole["a_lowlight_enhanced.png"]
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 3
    assert read_weights(tmp_path / "w.safetensors").tensors


def test_a_start_from_another_network_is_refused_before_any_photo(tmp_path: Path):
    save_photo(tmp_path / "a.png", torch.rand(1, 3, 16, 16) * 0.1)
    ran = CliRunner().invoke(app, ["zero-shot", str(tmp_path), "--init", "darkir-small", "--json"])
    assert (ran.exit_code, ran.stdout) == (3, "")
    assert "darkir-small" in ran.stderr
    assert "zeroig" in ran.stderr


def test_a_start_that_is_not_there_is_told_where_there_is_nothing_to_do(tmp_path: Path):
    for name in ("a.png", "a_lowlight.png"):
        save_photo(tmp_path / name, torch.rand(1, 3, 16, 16) * 0.1)
    for way in ((), ("--overwrite", "--dry-run")):
        ran = zero_shot(tmp_path / "a.png", "--init", "nosuch", *way)
        assert (ran.exit_code, ran.stdout) == (3, "")
        assert "nosuch" in ran.stderr


def test_memory_that_runs_out_fails_one_photo(tmp_path: Path, monkeypatch):
    for name in ("a.png", "b.png"):
        save_photo(tmp_path / name, torch.rand(1, 3, 16, 16) * 0.1)
    write = zero_shot_files.write_picture

    def short(picture: Picture, target: Path, **how: object) -> tuple[str, ...]:
        if "a_" in target.name:
            raise MemoryError
        return write(picture, target, **how)

    monkeypatch.setattr(zero_shot_files, "write_picture", short)
    _, results = run_files(tmp_path, ZeroShot("paper", 1))
    assert [result.status for result in results] == ["failed", "done"]
    assert results[0].error is not None
    assert results[0].error.code == "memory"


def test_white_balance_and_contrast_do_what_they_say_and_nothing_when_off():
    levels = np.linspace(60, 140, 32 * 32).reshape(32, 32, 1)
    tinted = np.rint(levels * np.array([1.0, 0.8, 0.6])).astype(np.uint8)
    picture = Picture(tinted)
    assert np.array_equal(finished(picture, white_balance=False, contrast=False).pixels, tinted)
    balanced = finished(picture, white_balance=True, contrast=False).pixels.mean(axis=(0, 1))
    assert np.ptp(balanced) < np.ptp(tinted.mean(axis=(0, 1))) / 5
    stretched = finished(picture, white_balance=False, contrast=True).pixels
    assert np.ptp(stretched.mean(axis=2)) > 1.2 * np.ptp(tinted.mean(axis=2))


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["discard", "save"])
@pytest.mark.parametrize("preset", ["fast", "paper"])
def test_ctrl_c_at_a_random_step_leaves_nothing_half_written(tmp_path: Path, preset: str, choice: str):
    save_photo(tmp_path / "night.png", darkened(scene(120, 140)))
    code = "from lowlight_cli.__main__ import main; main()"
    steps = ["--preset", preset, "--epochs", "2000", "--preview-every", "1", "--preview-dir", "previews"]
    for delay in np.random.default_rng(0).uniform(0, 3, 2):
        with subprocess.Popen(
            [sys.executable, "-c", code, "zero-shot", "night.png", "-q", *steps, "--on-interrupt", choice],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            stderr=subprocess.PIPE,
        ) as child:
            while not list(tmp_path.glob("previews/*.png")) and child.poll() is None:
                time.sleep(0.05)
            time.sleep(delay)
            child.send_signal(signal.SIGINT)
            _, told = child.communicate(timeout=60)
        assert child.returncode == 130, told
        assert b"Traceback" not in told
        latest = [path for path in tmp_path.glob("*") if path.is_file() and path.name != "night.png"]
        assert len(latest) == (1 if choice == "save" else 0)
        for path in latest:
            assert path.name.startswith("night_lowlight.step")
            with Image.open(path) as picture:
                assert picture.size == (140, 120)
            path.unlink()
        shutil.rmtree(tmp_path / "previews")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fast_reaches_its_quality_on_real_pairs():
    folder = SHARED / "data" / "val_lol"
    if not folder.is_dir():
        pytest.skip("the validation pairs lie beside the checkout")
    plain, gt_mean, start = [], [], []
    for path in sorted((folder / "low").iterdir()):
        photo, reference = (read_rgb(folder / kind / path.name) for kind in ("low", "high"))
        start.append(psnr(result_of(Fit([TensorSource(photo)], ZeroShot()).state_dict(), photo), reference))
        result = result_of(fitted(photo, ZeroShot()), photo)
        plain.append(psnr(result, reference))
        scale = luma(reference).mean() / luma(result).mean()
        gt_mean.append(psnr((result * scale).clamp(0, 1), reference))
    assert np.mean(plain) >= 17.5
    assert np.mean(gt_mean) >= 21.0
    assert np.mean(plain) >= np.mean(start) + 0.5


def read_rgb(path: Path) -> Tensor:
    with Image.open(path) as picture:
        return torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


def luma(picture: Tensor) -> Tensor:
    return (picture * picture.new_tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(dim=1)


def test_previews_do_not_go_where_photos_or_other_files_lie(tmp_path: Path):
    photo = save_photo(tmp_path / "x.png", darkened(scene()))
    own = tmp_path / "x_lowlight.step1.png"
    own.write_bytes(b"mine")
    previews = ("--preview-every", "1", "--preview-dir")
    assert zero_shot(photo, "-o", tmp_path / "out.png", *previews, tmp_path, "--overwrite").exit_code == 2
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "x.txt").write_text("mine")
    assert zero_shot(photo, *previews, tmp_path / "p").exit_code == 2
    assert own.read_bytes() == b"mine"
    assert zero_shot(photo, *previews, tmp_path / "p", "--overwrite").exit_code == 0
    assert len(list((tmp_path / "p").iterdir())) == 3


def test_a_folder_for_previews_that_cannot_be_read_is_told():
    with as_an_ordinary_user(), tempfile.TemporaryDirectory() as name:
        photo, closed = save_photo(Path(name) / "x.png", darkened(scene())), Path(name) / "closed"
        closed.mkdir(mode=0o300)
        ran = zero_shot(photo, "--preview-every", "1", "--preview-dir", closed)
        closed.chmod(0o700)
    assert ran.exit_code == 2, ran.output
    assert "cannot be read: Permission denied" in ran.stderr.replace("\n", " ")


def test_the_latest_state_takes_a_name_that_is_free(tmp_path: Path):
    path = tmp_path / "night_lowlight.step7.png"
    assert _free(path) == path
    path.touch()
    assert _free(path).name == "night_lowlight.step7_2.png"
    _free(path).touch()
    assert _free(path).name == "night_lowlight.step7_3.png"
