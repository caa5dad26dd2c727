"""No CPU tensor slips into a network on another device. Meta tensors hold no numbers, but they refuse to be mixed."""

import contextlib
import dataclasses

import pytest
import torch

from lowlight_cli.backends.darkir.inference import fold
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.darkir.pooling import PoolRecord, pool_from
from lowlight_cli.backends.zeroig.losses import zero_shot_loss
from lowlight_cli.backends.zeroig.network import ZeroIG
from lowlight_cli.train.network import build_network, training_loss
from lowlight_cli.train.recipe import LossRecipe, read_recipe
from lowlight_cli.train.samples import Batch

META = torch.device("meta")


def test_meta_tensors_refuse_to_be_mixed():
    with pytest.raises(RuntimeError):
        torch.ones(2, device=META) * torch.ones(2)


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("use_csf", [False, True])
def test_darkir_for_pictures(dtype, use_csf):
    network = fold(DarkIR(width=8, use_csf=use_csf, direction_floor=0.1).eval().to(META), dtype=dtype)
    image, record = torch.ones(1, 3, 67, 96, device=META), PoolRecord()
    results = [
        network(image),
        network(image, record.record),
        network(image, pool_from(record.vectors)),
        network(image.repeat(2, 1, 1, 1)),
    ]
    assert [result.device for result in (*results, *network.with_side(image))] == [META] * 6


@pytest.mark.parametrize("name", ["darkir-small", "darkir-m-csf"])
def test_darkir_in_training(name, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # meta tensors have none
    losses = {field.name: 1.0 for field in dataclasses.fields(LossRecipe)}
    every_loss = LossRecipe(**losses | {"perceptual": 0.0})  # which fetches its network
    recipe = dataclasses.replace(read_recipe(name), loss=every_loss)
    network = build_network(recipe.network).to(META)
    picture = torch.ones(2, 3, 64, 64, device=META)
    training_loss(network, Batch(picture, picture, torch.ones(2, device=META)), recipe).backward()
    assert {parameter.grad.device for parameter in network.parameters() if parameter.grad is not None} == {META}


def test_zeroig():
    network, image = ZeroIG().to(META), torch.ones(1, 3, 64, 80, device=META)
    zero_shot_loss(network, image).backward()
    assert network.eval()(image).denoised.device == META
