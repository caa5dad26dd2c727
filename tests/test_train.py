import dataclasses
import json
import logging
import math
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from threadcount import torch_threads

import lowlight_cli.train.loop as loop_module
import lowlight_cli.train.network as network_module
from lowlight_cli.backends.darkir.adapter import build_network
from lowlight_cli.enhancer import find_model
from lowlight_cli.errors import InputError, NumericsError, SettingsError, WeightsError, WorkerError
from lowlight_cli.pairs import Pair
from lowlight_cli.train.events import Progress, Saved, Validation
from lowlight_cli.train.journal import journaled
from lowlight_cli.train.loop import learning_rate, train
from lowlight_cli.train.photographed import PhotographedPair, load_pairs
from lowlight_cli.train.processes import Processes, own_device
from lowlight_cli.train.radiance import look, read_radiance
from lowlight_cli.train.recipe import (
    DataRecipe,
    Schedule,
    Stage,
    parse_recipe,
    read_recipe,
    recipe_toml,
)
from lowlight_cli.train.scenes import load_clean
from lowlight_cli.train.settings import Run, published_recipes
from lowlight_cli.weights_file import read_weights
from lowlight_cli.zero_shot.pretrain import read_photos

SHARED = Path(__file__).resolve().parents[1].parent / "shared"

TINY = """
name = "tiny"
seed = 5
[network]
width = 8
enc_blk_nums = [1]
dec_blk_nums = [1]
middle_blk_num_enc = 1
middle_blk_num_dec = 1
dilations = [1, 2]
unshuffle = 2
haar = true
[data]
held_out = ["photo5"]
[camera]
well_lit_share = 0.0
mild_share = 0.0
stops_under = [3.0, 6.0]
[loss]
detail = 0.5
[optimiser]
learning_rate = 4e-3
ema = 0.95
[schedule]
warm_up = 5
stages = [{ steps = STEPS, crop = 32, batch = 2 }]
"""


@pytest.fixture(autouse=True)
def _one_thread():
    with torch_threads(1):
        yield


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """Six made-up photographs: soft patches of colour with sharp bars across."""
    folder = tmp_path_factory.mktemp("clean")
    for number in range(6):
        rng = np.random.default_rng(number)
        patches = Image.fromarray((rng.random((4, 5, 3)) * 255).astype(np.uint8))
        picture = np.asarray(patches.resize((80, 64), Image.Resampling.BICUBIC)).copy()
        for left in rng.integers(0, 76, 4):
            picture[:, left : left + 3] = rng.integers(0, 255, 3)
        Image.fromarray(picture).save(folder / f"photo{number}.png")
    return folder


def tiny(steps=12, *, validated=True):
    recipe = parse_recipe(TINY.replace("STEPS", str(steps)))
    return recipe if validated else dataclasses.replace(recipe, data=DataRecipe())


def train_tiny(clean, output, recipe, **run):
    return list(train(recipe, *load_clean(clean, recipe), run=Run(output, **run)))


def halves_the_loss(clean, output, steps):
    """Train from unlifted pictures, and compare the last validation with one after the very first step."""
    recipe = tiny(steps)
    recipe = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, lift=False, haar=False))
    events = train(recipe, *load_clean(clean, recipe), run=Run(output / "first", validate_every=1))
    first = next(event for event in events if isinstance(event, Validation))
    events.close()
    last = [event for event in train_tiny(clean, output / "all", recipe) if isinstance(event, Validation)][-1]
    assert last.step == steps
    assert last.loss < first.loss / 2
    assert last.psnr > first.psnr + 3


def test_sixty_steps_halve_the_validation_loss(clean, tmp_path):
    halves_the_loss(clean, tmp_path, 60)


@pytest.mark.slow
def test_three_hundred_steps_halve_the_validation_loss(clean, tmp_path):
    halves_the_loss(clean, tmp_path, 300)


def test_a_training_stopped_and_resumed_gives_the_same_bytes(clean, tmp_path):
    recipe = tiny(12, validated=False)
    train_tiny(clean, tmp_path / "whole", recipe)
    for event in train(recipe, *load_clean(clean, recipe), run=Run(tmp_path / "cut", save_every=5)):
        if isinstance(event, Saved) and event.step == 5:
            break  # the generator is dropped here, in the middle of its work
    resumed = train_tiny(clean, tmp_path / "cut", recipe, save_every=5, report_every=1)
    assert [event.step for event in resumed if isinstance(event, Progress)] == list(range(6, 13))
    whole, cut = (tmp_path / name / "tiny.safetensors" for name in ("whole", "cut"))
    assert whole.read_bytes() == cut.read_bytes()


# Trains by a recipe, on photos, in a folder; with a fourth argument it gets that signal soon after its fifth event.
TRAIN_SCRIPT = """
import os, sys, threading
from pathlib import Path
import torch
from lowlight_cli.interrupts import raise_on_signals
from lowlight_cli.train.events import Started
from lowlight_cli.train.loop import train
from lowlight_cli.train.recipe import read_recipe
from lowlight_cli.train.scenes import load_clean
from lowlight_cli.train.settings import Run, published_recipes
torch.set_num_threads(1)
recipe = read_recipe(sys.argv[1])
run = Run(Path(sys.argv[3]), save_every=7, report_every=1)
raise_on_signals()
for number, event in enumerate(train(recipe, *load_clean(Path(sys.argv[2]), recipe), run=run)):
    if not isinstance(event, Started):
        print(getattr(event, "loss", ""), flush=True)
    if number == 5 and len(sys.argv) == 5:
        threading.Timer(0.01, os.kill, (os.getpid(), int(sys.argv[4]))).start()
"""


def start_training(clean, recipe_file, output):
    command = [sys.executable, "-c", TRAIN_SCRIPT, str(recipe_file), str(clean), str(output)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_a_training_killed_at_random_moments_gives_the_same_bytes(clean, tmp_path):
    recipe_file = tmp_path / "tiny.toml"
    recipe_file.write_text(TINY.replace("STEPS", "300"))
    train_tiny(clean, tmp_path / "whole", read_recipe(str(recipe_file)))
    chance = random.Random(7)
    for _ in range(4):
        process = start_training(clean, recipe_file, tmp_path / "killed")
        for _ in range(chance.randint(10, 90)):  # lines it tells, about one a step
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    process = start_training(clean, recipe_file, tmp_path / "killed")
    process.communicate()
    assert process.returncode == 0
    whole, killed = (tmp_path / name / "tiny.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


@pytest.fixture(scope="module")
def whole_training(clean, tmp_path_factory):
    """The weights of a training that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    with torch_threads(1):
        train_tiny(clean, folder, tiny(25), save_every=1000, validate_every=1000)
    return (folder / "tiny.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_training_that_is_asked_to_stop_keeps_its_last_step(clean, whole_training, fitting, tmp_path, number):
    recipe_file = tmp_path / "tiny.toml"
    recipe_file.write_text(TINY.replace("STEPS", "25"))
    arguments = (
        TRAIN_SCRIPT.replace("save_every=7", "save_every=1000"),
        recipe_file,
        clean,
        tmp_path / "cut",
        str(int(number)),
    )
    ran = fitting.run(*arguments, call="forks:execute")
    assert "Interrupted" in ran.said
    steps = len(ran.out.splitlines())
    kept = torch.load(tmp_path / "cut" / "checkpoint.pt", weights_only=True)["step"]
    assert steps <= kept <= steps + 1 < 25
    train_tiny(clean, tmp_path / "cut", read_recipe(str(recipe_file)), save_every=1000, validate_every=1000)
    assert (tmp_path / "cut" / "tiny.safetensors").read_bytes() == whole_training


def test_a_schedule_may_be_lengthened_on_resuming_but_nothing_else_changed(clean, tmp_path):
    short, long = (tiny(steps, validated=False) for steps in (3, 5))
    short = dataclasses.replace(short, schedule=dataclasses.replace(short.schedule, decay=0))
    long = dataclasses.replace(long, schedule=dataclasses.replace(long.schedule, decay=0))
    train_tiny(clean, tmp_path / "grown", short)
    train_tiny(clean, tmp_path / "grown", long)
    train_tiny(clean, tmp_path / "whole", long)
    grown, whole = (tmp_path / name / "tiny.safetensors" for name in ("grown", "whole"))
    assert grown.read_bytes() == whole.read_bytes()
    gently = dataclasses.replace(long.optimiser, learning_rate=1e-3)
    other = dataclasses.replace(long, seed=6, optimiser=gently)
    told = "another recipe: optimiser.learning_rate is 0.001 here and 0.004 there, seed is 6 here and 5 there; only"
    with pytest.raises(SettingsError, match=told):
        train_tiny(clean, tmp_path / "grown", other)
    other = with_network(other, width=16, haar=False)
    with pytest.raises(SettingsError, match=r"haar is false here .*network\.width is 16 .* there and 1 more differ;"):
        train_tiny(clean, tmp_path / "grown", other)


def test_a_damaged_checkpoint_is_refused_readably(clean, tmp_path):
    for content in (b"PK\x03\x04 not a checkpoint", b""):
        (tmp_path / "checkpoint.pt").write_bytes(content)
        with pytest.raises(WeightsError, match=r"checkpoint\.pt is damaged; remove it to begin anew, .*--output$"):
            train_tiny(clean, tmp_path, tiny(2))


@pytest.mark.parametrize(("part", "content"), [("network", {"a": 1}), ("optimiser", {}), ("average", {}), ("step", {})])
def test_a_checkpoint_that_was_tampered_with_is_refused_readably(clean, tmp_path, part, content):
    train_tiny(clean, tmp_path, tiny(1, validated=False))
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    torch.save({**kept, part: content}, tmp_path / "checkpoint.pt")
    with pytest.raises(WeightsError, match=r"checkpoint\.pt is damaged; remove it to begin anew, .*--output$"):
        train_tiny(clean, tmp_path, tiny(1, validated=False))


def test_a_checkpoint_given_as_weights_tells_of_the_file_that_is_meant(clean, tmp_path):
    train_tiny(clean, tmp_path, tiny(1, validated=False))
    with pytest.raises(WeightsError, match=r"checkpoint of a training: its weights are the \.safetensors file beside"):
        read_weights(tmp_path / "checkpoint.pt")


def test_the_exported_file_is_the_trained_network_and_says_where_it_comes_from(clean, tmp_path):
    recipe = tiny(3, validated=False)
    train_tiny(clean, tmp_path, recipe, data="six made-up pictures")
    weights = read_weights(tmp_path / "tiny.safetensors")
    assert weights.metadata["recipe"] == "tiny"
    assert weights.metadata["recipe_sha256"] == recipe.digest
    assert weights.metadata["step"] == weights.metadata["steps"] == "3"
    assert weights.metadata["data"] == "six made-up pictures"
    network = build_network(weights, {})
    assert network.img_channel == 12
    trained = network_module.build_network(recipe.network)
    trained.load_state_dict(torch.load(tmp_path / "checkpoint.pt", weights_only=True)["average"])
    training, _ = load_clean(clean, recipe)
    batch = training.batch(recipe, 0, crop=32, places=range(2))
    plain = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, haar=False))
    with torch.inference_mode():
        ours = network_module.predict(trained, batch, recipe)
        theirs = network_module.predict(network, batch, plain)
    # Half precision in the file is the difference; a basis folded wrongly would be off by tenths.
    assert (ours - batch.lifted).abs().max() > 0.02
    assert torch.allclose(ours, theirs, atol=5e-3)


def with_network(recipe, **settings):
    return dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, **settings))


def test_a_training_starts_from_what_another_has_learned_and_says_so(clean, tmp_path):
    learned = [e for e in train_tiny(clean, tmp_path / "first", tiny(25)) if isinstance(e, Validation)][-1]
    initial = find_model("first", weights=tmp_path / "first" / "tiny.safetensors")
    recipe, gently = tiny(4), dataclasses.replace(tiny(1).optimiser, learning_rate=1e-6)
    pictures = load_clean(clean, recipe)
    # Another basis or none, the network is the same: that it learns in one is undone in the file.
    for name, haar in (("basis", True), ("none", False)):
        tuned = dataclasses.replace(with_network(recipe, haar=haar), optimiser=gently)
        events = list(train(tuned, *pictures, run=Run(tmp_path / name), initial=initial))
        before, after = (e for e in events if isinstance(e, Validation))
        assert (before.step, after.step) == (0, 4)
        assert before.psnr == pytest.approx(learned.psnr, abs=0.02)  # half precision lies between
        assert after.psnr == pytest.approx(before.psnr, abs=0.02)
        held = read_weights(tmp_path / name / "tiny.safetensors")
        assert held.metadata["initial_sha256"] == initial.weights.sha256
    unlearned = train(recipe, *pictures, run=Run(tmp_path / "chance", validate_every=1))
    chance = next(event for event in unlearned if isinstance(event, Validation))
    assert chance.loss > 1.2 * learned.loss


def test_a_training_is_resumed_with_the_weights_that_it_started_from_only(clean, tmp_path):
    train_tiny(clean, tmp_path / "first", tiny(2))
    recipe = tiny(4)
    initial = find_model("first", weights=tmp_path / "first" / "tiny.safetensors")
    pictures = load_clean(clean, recipe)
    stopped = train(recipe, *pictures, run=Run(tmp_path / "tuned", save_every=2), initial=initial)
    next(event for event in stopped if isinstance(event, Saved))
    stopped.close()
    with pytest.raises(SettingsError, match=r"started from other weights; give the same --init, or another --output$"):
        list(train(recipe, *pictures, run=Run(tmp_path / "tuned")))
    resumed = list(train(recipe, *pictures, run=Run(tmp_path / "tuned", save_every=2), initial=initial))
    list(train(recipe, *pictures, run=Run(tmp_path / "whole"), initial=initial))
    assert [event.step for event in resumed if isinstance(event, Validation)] == [4]
    files = [tmp_path / name / "tiny.safetensors" for name in ("tuned", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"width": 16},
            "taken for the network of the recipe tiny, does not fit: it has another shape at 'intro.weight'",
        ),
        ({"use_csf": True}, "it lacks 'csf_blocks"),
        ({"lift": False}, "another shape at 'intro.weight'"),
        ({"dilations": (1, 3)}, "its dilation rates are others"),
    ],
)
def test_weights_of_another_network_are_refused_as_a_start(clean, tmp_path, settings, told):
    train_tiny(clean, tmp_path, tiny(1, validated=False))
    initial = find_model("first", weights=tmp_path / "tiny.safetensors")
    recipe = with_network(tiny(2), **settings)
    with pytest.raises(WeightsError, match=re.escape(told)):
        list(train(recipe, *load_clean(clean, recipe), run=Run(tmp_path / "tuned"), initial=initial))


def test_the_embedded_network_is_a_start_for_the_recipes_that_are_meant_for_it():
    for name in ("darkir-small", "darkir-small-tune"):
        recipe = read_recipe(name)
        network = network_module.build_network(recipe.network)
        network_module.start_from(network, find_model("darkir-small"), recipe)


def test_the_log_and_the_curve_tell_each_step_once_also_after_resuming(clean, tmp_path):
    for steps in (3, 6):
        recipe = tiny(steps)
        run = Run(tmp_path, report_every=1, save_every=2, validate_every=3)
        for _ in journaled(train(recipe, *load_clean(clean, recipe), run=run), tmp_path):
            pass
        with (tmp_path / "log.jsonl").open("a") as log:
            log.write('{"event": "progr')  # as a kill leaves it
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    logged = [json.loads(line) for line in lines[:-1]]
    assert [line["step"] for line in logged if line["event"] == "progress"] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in logged if line["event"] == "validation"] == [3, 6]
    for name in ("curve.png", "preview.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(picture.getcolors(2**24)) > 5


def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(clean, tmp_path):
    recipe = tiny(2)
    training, _ = load_clean(clean, recipe)
    batch = training.batch(recipe, 0, crop=32, places=range(2))
    state = loop_module.fresh_state(recipe, torch.device("cpu"))
    before = {name: tensor.clone() for name, tensor in state.network.state_dict().items()}
    batch.lifted[0, 0, 0, 0] = float("nan")
    loop_module.advance(state, batch, recipe, Processes(), gradients=network_module.gradients_of(state.network, recipe))
    assert (state.step, state.skipped) == (1, 1)
    assert all(torch.equal(before[name], tensor) for name, tensor in state.network.state_dict().items())


@pytest.mark.parametrize(
    ("steps", "rate", "told"),
    [
        (60, 1e30, "the last 50 steps up to 51 were not finite"),
        (3, 1e30, "not finite in half precision"),
        (2, 1e6, "the weights after step 2 are not finite in half precision"),
    ],
)
def test_a_training_that_breaks_writes_no_weights_and_says_what_to_change(clean, tmp_path, caplog, steps, rate, told):
    recipe = tiny(steps, validated=False)
    recipe = dataclasses.replace(recipe, optimiser=dataclasses.replace(recipe.optimiser, learning_rate=rate))
    with pytest.raises(NumericsError, match=f"{told}.*lower learning_rate in the recipe$"):
        train_tiny(clean, tmp_path, recipe)
    assert not (tmp_path / "tiny.safetensors").exists()
    assert not (tmp_path / "checkpoint.pt").exists()
    assert not caplog.messages


def test_a_training_no_step_of_which_is_finite_is_no_success(clean, tmp_path, monkeypatch):
    monkeypatch.setattr(loop_module.Gradients, "fill", lambda self, *batch: torch.tensor(math.nan))
    with pytest.raises(NumericsError, match="the last 3 steps up to 3 were not finite"):
        train_tiny(clean, tmp_path, tiny(3, validated=False))


@pytest.mark.parametrize("loss", ["side", "ms_ssim", "edge", "frequency", "l1"])
def test_every_loss_of_a_recipe_has_a_gradient(clean, loss):
    recipe = tiny(1)
    recipe = dataclasses.replace(recipe, loss=dataclasses.replace(recipe.loss, **{loss: 1.0}))
    training, _ = load_clean(clean, recipe)
    network = network_module.build_network(recipe.network)
    batch = training.batch(recipe, 0, crop=32, places=range(2))
    network_module.training_loss(network, batch, recipe).backward()
    layer = network.side_out if loss == "side" else network.ending
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 0


@pytest.mark.slow
def test_two_processes_train_the_network_that_one_trains(clean, tmp_path):
    recipe_file = tmp_path / "tiny.toml"
    recipe_file.write_text(TINY.replace("STEPS", "20"))
    script = tmp_path / "script.py"
    script.write_text(TRAIN_SCRIPT)
    alone = start_training(clean, recipe_file, tmp_path / "one").communicate()[0]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [sys.executable, *launcher, str(script), str(recipe_file), str(clean), str(tmp_path / "two")]
    together = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    ).stdout
    one, two = ([float(word) for word in text.split()] for text in (alone, together))
    assert len(one) == len(two) > 20
    assert two == pytest.approx(one, abs=1e-4)


def test_a_batch_that_cannot_be_shared_out_is_refused():
    assert Processes(1, 2).share(8) == range(4, 8)
    with pytest.raises(SettingsError, match="cannot be shared"):
        Processes(0, 3).share(8)


def test_photographed_pairs_train_from_equal_crops_of_both(clean, tmp_path):
    low, high = tmp_path / "low", tmp_path / "high"
    for folder in (low, high):
        folder.mkdir()
    for photo in sorted(clean.glob("*.png")):
        picture = np.asarray(Image.open(photo)).astype(np.float32)
        Image.fromarray(picture.astype(np.uint8)).save(high / photo.name)
        Image.fromarray((picture * 0.05).astype(np.uint8)).save(low / photo.name)
    training, held_out = load_pairs(low, high, tiny(1))
    assert (len(training.photos), len(held_out.photos)) == (5, 1)
    recipe = tiny(2)
    batch = training.batch(recipe, 0, crop=32, places=range(4))
    assert float(batch.stops.min()) > 2
    assert (batch.lifted - batch.reference).abs().mean() < 0.2
    unlifted = dataclasses.replace(recipe, network=dataclasses.replace(recipe.network, lift=False))
    dark = training.batch(unlifted, 0, crop=32, places=range(4))
    assert torch.allclose(dark.lifted, dark.reference * 0.05, atol=1.1 / 255)
    events = list(train(unlifted, training, held_out, run=Run(tmp_path / "run")))
    assert isinstance(events[-1], Validation)


def test_pairs_too_small_of_two_sizes_unreadable_or_incomplete_are_left_out_and_named(tmp_path, caplog):
    folders = low, high = [tmp_path / name for name in ("low", "high")]
    for folder in folders:
        folder.mkdir()
    sizes = {"a": (20, 20), "b": (40, 44), "c": (40, 40), "d": (40, 40), "e": (40, 40)}
    for name, side in sizes.items():
        Image.new("RGB", (min(side), side[0])).save(low / f"{name}.png")
        Image.new("RGB", side).save(high / f"{name}.png")
    (high / "c.png").write_bytes(b"")
    Image.new("RGB", (40, 40)).save(low / "f.png")
    Image.new("RGB", (40, 40)).save(high / "g.png")
    with caplog.at_level(logging.WARNING, "lowlight_cli"):
        training, held_out = load_pairs(*folders, tiny(1))
    assert [len(training), len(held_out)] == [1, 1]
    assert [(Path(one.input).name, one.reason) for one in training.left_out] == [
        ("a.png", "it is smaller than the crops of 32x32"),
        ("b.png", "it and its reference differ in size"),
        ("c.png", "it is empty"),
        ("f.png", "it has no reference of its name"),
        ("g.png", "no dark picture has its name"),
    ]
    assert len(caplog.messages) == 4
    assert caplog.messages[-1] == "left out in all: 5 pictures"
    for name, complaint in (("a", "smaller"), ("b", "differ in size"), ("c", "empty")):
        with pytest.raises(InputError, match=complaint):  # as when a file changes later on
            PhotographedPair(Pair(low / f"{name}.png", high / f"{name}.png", name)).sample(tiny(1), 32, None)
    (low / "d.png").write_bytes(b"")
    with pytest.raises(SettingsError, match=r"1 of at least 32x32 pixels that can be read; two are needed"):
        load_pairs(*folders, tiny(1))


def test_the_test_split_of_a_data_set_is_held_out(clean, tmp_path):
    picture = min(clean.glob("*.png")).read_bytes()
    write_pairs(tmp_path / "our485", picture, ("1", "2", "3"))
    write_pairs(tmp_path / "eval15", picture, ("4",))
    training, held_out = load_pairs(tmp_path, tmp_path, tiny(1))
    assert (len(training.photos), len(held_out.photos)) == (3, 1)


def write_pairs(folder, picture, names):
    for side in ("low", "high"):
        (folder / side).mkdir(parents=True)
        for name in names:
            (folder / side / f"{name}.png").write_bytes(picture)


def photographed(clean, folder):
    """Six pairs; those of 1 and 5 have their pixels cut off, which no head tells."""
    for side in ("low", "high"):
        shutil.copytree(clean, folder / side)
    for number in (1, 5):
        path = folder / "high" / f"photo{number}.png"
        path.write_bytes(path.read_bytes()[:-2000])
    return folder / "low", folder / "high"


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads, from Python 3.12 on
def test_a_pair_that_cannot_be_read_after_all_gives_way_to_others_and_is_named_once(clean, tmp_path, caplog):
    recipe = dataclasses.replace(tiny(10), data=DataRecipe(held_out=("photo4", "photo5")))
    folders = photographed(clean, tmp_path)
    with caplog.at_level(logging.WARNING, "lowlight_cli"):
        for workers in (0, 2):
            list(train(recipe, *load_pairs(*folders, recipe), run=Run(tmp_path / str(workers), workers=workers)))
    told = [f"left out: {folders[1] / f'photo{number}.png'}: " for number in (1, 5)]
    assert [sum(line.startswith(start) for line in caplog.messages) for start in told] == [2, 2]
    assert len(caplog.messages) == 4
    stopped = train(recipe, *load_pairs(*folders, recipe), run=Run(tmp_path / "cut", save_every=4))
    next(event for event in stopped if isinstance(event, Saved))
    stopped.close()
    list(train(recipe, *load_pairs(*folders, recipe), run=Run(tmp_path / "cut")))
    assert len({(tmp_path / name / "tiny.safetensors").read_bytes() for name in ("0", "2", "cut")}) == 1


def test_a_training_whose_pictures_are_all_lost_keeps_its_last_step(clean, tmp_path, caplog):
    recipe = dataclasses.replace(tiny(100), data=DataRecipe(held_out=("photo4", "photo5")))
    low, high = photographed(clean, tmp_path)
    events = train(recipe, *load_pairs(low, high, recipe), run=Run(tmp_path / "run", report_every=1))
    next(event for event in events if isinstance(event, Progress))
    shutil.rmtree(low)
    with pytest.raises(InputError, match=r"not one of 4 pictures can be read; replace or remove them: .*photo\d\.png"):
        list(events)
    kept = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"]
    assert 1 <= kept < 10
    assert f"stopped after step {kept}, from which the same command goes on" in caplog.messages


def test_a_validation_split_is_validated_on_and_neither_it_nor_a_test_split_trained_on(clean, tmp_path):
    picture = min(clean.glob("*.png")).read_bytes()
    for number, split in enumerate(("train", "valid", "test")):
        write_pairs(tmp_path / split, picture, (f"{number}", f"{number}b"))
    assert [named(part) for part in load_pairs(tmp_path, tmp_path, tiny(1))] == [["0", "0b"], ["1", "1b"]]
    write_pairs(tmp_path / "extra", picture, ("4",))
    with pytest.raises(SettingsError, match="of no split that its folders name, beside others of test and train and"):
        load_pairs(tmp_path, tmp_path, tiny(1))
    for name in ("extra", "train"):
        shutil.rmtree(tmp_path / name)
    with pytest.raises(SettingsError, match="the names of their folders hold out every pair"):
        load_pairs(tmp_path, tmp_path, tiny(1))


def test_splits_within_two_folders_part_them_too(clean, tmp_path):
    picture = min(clean.glob("*.png")).read_bytes()
    for side in ("dark", "bright"):
        for split in ("train", "val"):
            (tmp_path / side / split).mkdir(parents=True)
            (tmp_path / side / split / f"{split}1.png").write_bytes(picture)
    parts = load_pairs(tmp_path / "dark", tmp_path / "bright", tiny(1))
    assert [named(part) for part in parts] == [["train1"], ["val1"]]


def named(sources):
    return [Path(source.pair.name).name for source in sources.photos]


def holding_out(*names):
    return dataclasses.replace(tiny(1), data=DataRecipe(held_out=names))


def test_the_pairs_that_a_recipe_lists_are_validated_on_and_never_trained_on(clean, tmp_path):
    picture = min(clean.glob("*.png")).read_bytes()
    write_pairs(tmp_path / "our485", picture, ("1", "2", "3"))
    write_pairs(tmp_path / "eval15", picture, ("22", "23"))
    for names, training, held_out in (
        (("nobody",), ["1", "2", "3"], ["22", "23"]),
        (("2", "22"), ["1", "3"], ["22", "2"]),
        (("our485/2", "eval15/23"), ["1", "3"], ["23", "2"]),
    ):
        parts = load_pairs(tmp_path, tmp_path, holding_out(*names))
        assert [named(part) for part in parts] == [training, held_out]
    inside = tmp_path / "our485" / "low", tmp_path / "our485" / "high"
    assert [named(part) for part in load_pairs(*inside, holding_out("1"))] == [["2", "3"], ["1"]]
    with pytest.raises(SettingsError, match="the recipe holds out every pair"):
        load_pairs(*inside, holding_out("1", "2", "3"))


def test_a_folder_without_pictures_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="to train on"):
        load_clean(tmp_path, tiny(1))


def test_own_photos_have_every_twentieth_held_out_and_the_recipes_list_rules_where_it_matches(clean, tmp_path):
    photo = min(clean.glob("*.png")).read_bytes()
    for number in range(41):
        (tmp_path / f"own{number:02}.png").write_bytes(photo)
    rgbe = np.full((64, 126, 4), 129, np.uint8)
    write_radiance(tmp_path / "zenith.hdr", rgbe)
    training, held_out = load_clean(tmp_path, tiny(1))
    assert [len(training.photos), len(training.panoramas), len(held_out)] == [39, 1, 2]
    (tmp_path / "photo5.png").write_bytes(photo)
    training, held_out = load_clean(tmp_path, tiny(1))
    assert [len(training.photos), len(training.panoramas), len(held_out)] == [41, 1, 1]
    assert load_clean(clean, tiny(1))[0].digest == load_clean(clean, tiny(1))[0].digest != training.digest


def test_photos_are_found_as_every_command_finds_them(clean, tmp_path, caplog):
    photo = Image.open(min(clean.glob("*.png")))
    photo.save(tmp_path / "a.jpg")
    photo.save(tmp_path / "b.avif")
    photo.save(tmp_path / "no suffix", "PNG")
    photo.resize((20, 20)).save(tmp_path / "small.png")
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\x16\7" + bytes(100))  # what a Mac leaves on foreign disks
    (tmp_path / "notes.txt").write_text("of the shoot")
    with caplog.at_level(logging.WARNING, "lowlight_cli"):
        assert [len(part) for part in load_clean(tmp_path, tiny(1))] == [2, 1]
        assert [photo.shape for photo in read_photos(tmp_path)] == [(64, 80, 3)] * 3 + [(20, 20, 3)]
    assert caplog.messages == [f"left out: {tmp_path / 'small.png'}: it is smaller than the crops of 32x32"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("name = ", "no TOML"),
        ('name = "x"\n[loss]\nmagic = 1', "magic"),
        ('name = "x"\nseed = "one"', "seed"),
        ('name = "x"\n[network]\nunshuffle = 3', "unshuffle"),
        ('name = "x"\n[optimiser]\nprecision = "fp8"', "precision"),
        ('name = "x"\nloss = 3', "loss"),
        ("seed = 1", "incomplete"),
        ('name = "x"\n[schedule]\nstages = [{ steps = 3 }]', "incomplete"),
        ('name = "x"\n[network]\nuse_csf = 1', "use_csf"),
        ('name = "x"\nseed = [1]', "seed"),
        ('name = "x"\n[optimiser]\nlearning_rate = [1, 2]', "learning_rate"),
        ('name = "x"\n[optimiser]\nbetas = [0.9]', "betas takes 2 values, not 1"),
        ('name = "x"\n[optimiser]\nbetas = 0.9', "betas"),
        ('name = "x"\n[network]\ndilations = ["a"]', "dilations cannot be 'a'"),
        ('name = "x"\n[camera]\nstops_under = [3.0, 4.0, 5.0]', "stops_under takes 2"),
        ('name = "x"\n[data]\nheld_out = [1]', "held_out"),
        ('name = "x"\nfoo = 1', "^the recipe: it has no setting 'foo'; there are name, seed, "),
        ('name = "x"\n[network]\nwidth = "a"', "^the recipe: network.width cannot be 'a'$"),
        ('name = "x"\nseed = -1', "seed"),
        ('name = "x"\n[network]\ndirection_floor = -0.1', "direction_floor"),
        ('name = "x"\n[data]\nview_share = 1.5', "view_share"),
        ('name = "x"\n[data]\nlift_jitter = nan', "lift_jitter"),
        ('name = "x"\n[loss]\nssim = -1', "weights of 0 or more"),
        ('name = "x"\n[loss]\ncharbonnier = 0', "one of them"),
        ('name = "x"\n[optimiser]\nlearning_rate = 0', "learning_rate"),
        ('name = "x"\n[optimiser]\nfinal_learning_rate = 1', "final_learning_rate"),
        ('name = "x"\n[optimiser]\nbetas = [0.9, 1]', "betas"),
        ('name = "x"\n[optimiser]\nema = 1', "ema"),
        ('name = "x"\n[optimiser]\nweight_decay = inf', "weight_decay"),
        ('name = "x"\n[optimiser]\ngradient_clip = 0', "gradient_clip"),
        ('name = "x"\n[schedule]\nwarm_up = -1', "warm_up"),
        ('name = "x"\n[network]\ndilations = []', "dilations and encoder_dilations are one number or more"),
        ('name = "x"\n[network]\nencoder_dilations = []', "encoder_dilations"),
        (
            'name = "x"\n[network]\nunshuffle = 2\n[schedule]\nstages = [{ steps = 3, crop = 33, batch = 2 }]',
            "^the recipe: unshuffle asks for crops of a multiple of 2 pixels, and 33 is none$",
        ),
        (
            'name = "x"\n[loss]\ndetail = 1\n[schedule]\nstages = [{ steps = 3, crop = 40, batch = 2 }]',
            "detail asks for crops of a multiple of 16 pixels",
        ),
        ('name = "x"\n[camera]\nstops_under = [4, 3]', r"stops_under cannot be \[4.0, 3.0\]: from least to most"),
        ('name = "x"\n[camera]\nelectrons = [0, 100]', "electrons"),
        ('name = "x"\n[camera]\nsaturation = [-1, 0]', "saturation"),
        ('name = "x"\n[camera]\njpeg_share = 2', "jpeg_share"),
        ('name = "x"\n[camera]\njpeg_quality = [70, 101]', "jpeg_quality"),
        ('name = "x"\n[camera]\nmotion_pixels = [2, inf]', "motion_pixels"),
    ],
)
def test_a_recipe_that_cannot_be_meant_is_refused_by_name(text, named):
    with pytest.raises(SettingsError, match=named):
        parse_recipe(text)


def test_every_published_recipe_reads_and_makes_its_network():
    assert "darkir-small" in published_recipes()
    for name in published_recipes():
        recipe = read_recipe(name)
        assert recipe.name == name
        network_module.build_network(recipe.network)
    with pytest.raises(SettingsError, match="no recipe"):
        read_recipe("no-such-recipe")


@pytest.mark.parametrize("name", published_recipes())
def test_every_published_recipe_trains_and_validates(clean, tmp_path, name):
    """In its own precision, with its own losses and blocks; smaller than it is meant."""
    published = read_recipe(name)
    recipe = dataclasses.replace(
        with_network(published, width=4),
        data=DataRecipe(held_out=("photo5",)),
        schedule=Schedule(stages=(Stage(steps=2, crop=32, batch=2),), warm_up=0),
    )
    events = train_tiny(clean, tmp_path, recipe)
    assert math.isfinite(next(event.loss for event in events if isinstance(event, Progress)))
    assert math.isfinite(next(event.psnr for event in events if isinstance(event, Validation)))
    assert Saved(2, tmp_path / f"{name}.safetensors") in events


def test_a_recipe_written_down_is_read_as_the_same():
    recipes = [read_recipe(name) for name in published_recipes()]
    odd = dataclasses.replace(
        tiny(3).data, held_out=('a "quoted" \\ name', "tab\t, bell\x07, delete\x7f", "r\u00e9sum\u00e9 \U0001f319")
    )
    limitless = dataclasses.replace(tiny(3).optimiser, gradient_clip=math.inf)
    recipes.append(dataclasses.replace(tiny(3), data=odd, optimiser=limitless, schedule=Schedule(decay=7)))
    for recipe in recipes:
        again = parse_recipe(recipe_toml(recipe))
        assert again == recipe
        assert again.digest == recipe.digest


def test_a_recipe_file_is_named_once_where_it_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    for text, told in (('name = "x"\nfoo = 1', ": it has no setting 'foo'; "), ("name = ", " is no TOML: ")):
        path.write_text(text)
        with pytest.raises(SettingsError) as refusal:
            read_recipe(str(path))
        assert str(refusal.value).startswith(f"the recipe {path}{told}")
        assert "recipe" not in str(refusal.value).removeprefix(f"the recipe {path}")


def test_the_learning_rate_rises_is_held_and_falls():
    recipe = tiny(100)
    recipe = dataclasses.replace(recipe, schedule=Schedule((Stage(100, 32, 4),), warm_up=10, decay=30))
    rates = [learning_rate(recipe, step) for step in range(100)]
    top = recipe.optimiser.learning_rate
    assert rates[0] == pytest.approx(top / 10)
    assert rates[10:70] == [top] * 60
    assert rates[70:] == sorted(rates[70:], reverse=True)
    assert rates[-1] < top / 100


def write_radiance(path, rgbe):
    """Write a Radiance picture with one run or one stretch of literals per line and channel."""
    height, width = rgbe.shape[:2]
    lines = bytearray(f"#?RADIANCE\nFORMAT=32-bit_rle_rgbe\n\n-Y {height} +X {width}\n".encode())
    for row in rgbe:
        lines += bytes((2, 2, width >> 8, width & 255))
        for channel in row.T:
            if (channel == channel[0]).all():
                lines += bytes((128 + width, channel[0]))
            else:
                lines += bytes((width,)) + channel.tobytes()
    path.write_bytes(bytes(lines))


def test_radiance_pictures_are_read_in_linear_light(tmp_path):
    rgbe = np.random.default_rng(0).integers(0, 255, (4, 16, 4), np.uint8)
    rgbe[..., 3] = 130
    write_radiance(tmp_path / "a.hdr", rgbe)
    wanted = rgbe[..., :3].astype(np.float32) * 2.0 ** (130 - 136)
    assert np.array_equal(read_radiance(tmp_path / "a.hdr"), wanted)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"#?RADIANCE\n\n-Y 4 +X 16\n\x02\x02\x00\x10",
        b"\x89PNG",
        b"#?R\n\n-Y a +X b\nxx",
        b"#?R\n\n-Y 1000000 +X 1000000\n\x02\x02",
    ],
)
def test_a_damaged_radiance_picture_is_an_input_error(tmp_path, content):
    (tmp_path / "a.hdr").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.hdr"):
        read_radiance(tmp_path / "a.hdr")


def test_a_view_looks_where_it_is_turned():
    panorama = np.zeros((64, 128, 3), np.float32)
    panorama[28:36, 60:68] = 1.0  # a lamp in the middle: at the horizon, half way round
    ahead = look(panorama, yaw=np.pi, pitch=0.0, field=1.2, size=(48, 64))
    behind = look(panorama, yaw=0.0, pitch=0.0, field=1.2, size=(48, 64))
    lamp = np.argwhere(ahead[..., 0] > 0.5)
    assert np.abs(lamp.mean(0) - (23.5, 31.5)).max() < 1.5
    assert behind.max() == 0


def test_panoramas_train_too(tmp_path):
    rgbe = np.random.default_rng(1).integers(20, 255, (64, 126, 4), np.uint8)
    rgbe[..., 3] = 129
    for name in ("a", "b"):
        write_radiance(tmp_path / f"{name}.hdr", rgbe)
    recipe = tiny(1)
    training, held_out = load_clean(tmp_path, recipe)
    assert [len(part.panoramas) for part in (training, held_out)] == [1, 1]
    batch = training.batch(recipe, 0, crop=32, places=range(4))
    assert torch.isfinite(batch.lifted).all()
    assert 0.1 < float(batch.reference.mean()) < 0.9


@pytest.mark.skipif(not (SHARED / "data" / "train" / "hdr").exists(), reason="needs ../shared/data/train/hdr")
def test_every_panorama_of_the_training_set_is_read():
    path = sorted((SHARED / "data" / "train" / "hdr").glob("*.hdr"))[0]
    radiance = read_radiance(path)
    assert radiance.shape == (512, 1024, 3)
    assert np.isfinite(radiance).all()
    assert radiance.min() >= 0
    assert radiance.max() > 1


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads, from Python 3.12 on
def test_processes_that_make_samples_change_no_byte(clean, tmp_path):
    recipe = tiny(8)
    for workers in (0, 2):
        train_tiny(clean, tmp_path / str(workers), recipe, workers=workers)
    first, second = (tmp_path / str(workers) / "tiny.safetensors" for workers in (0, 2))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork beside threads, from Python 3.12 on
def test_a_killed_maker_of_samples_ends_the_training_with_a_sentence(clean, tmp_path):
    events = train(tiny(400), *load_clean(clean, tiny(400)), run=Run(tmp_path, workers=1, report_every=1))
    next(event for event in events if isinstance(event, Progress))
    children = multiprocessing.active_children()
    assert len(children) == 1
    os.kill(children[0].pid, signal.SIGKILL)
    with pytest.raises(WorkerError, match="--workers"):
        list(events)


def test_the_gpu_that_torchrun_means_is_taken_unless_one_is_named(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [str(own_device(wanted)) for wanted in ("auto", "cuda", "cuda:1", "cpu")] == [
        "cuda:2", "cuda:2", "cuda:1", "cpu",
    ]  # fmt: skip


@pytest.mark.cuda
def test_a_training_on_a_gpu_is_resumed_there_and_on_a_cpu(clean, tmp_path):
    """The same network on either device, as near as float32 sums come."""
    recipe = tiny(12)
    for device in ("cpu", "cuda"):
        train_tiny(clean, tmp_path / device, recipe, device=device, workers=2)
    for device, other in (("cpu", "cuda"), ("cuda", "cpu"), ("cuda", "cuda")):
        stopped = train(recipe, *load_clean(clean, recipe), run=Run(tmp_path / "both", device=device, save_every=6))
        next(event for event in stopped if isinstance(event, Saved))
        stopped.close()
        train_tiny(clean, tmp_path / "both", recipe, device=other)
        for name, tensor in read_weights(tmp_path / "both" / "tiny.safetensors").tensors.items():
            wanted = read_weights(tmp_path / "cpu" / "tiny.safetensors").tensors[name]
            # Early steps of AdamW go by a gradient's sign, and rounding decides that of the smallest.
            assert (tensor.float() - wanted.float()).abs().mean() < 2e-3, name
        shutil.rmtree(tmp_path / "both")
