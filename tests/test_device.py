"""Devices and precisions: what is asked for, or an error."""

import pytest
import torch

from lowlight_cli.device import choose_device, choose_dtype, free_bytes, is_out_of_memory, usable_cpus
from lowlight_cli.errors import DeviceError, SettingsError


def test_absent_devices_are_errors():
    with pytest.raises(DeviceError, match="cuda:77"):
        choose_device("cuda:77")
    with pytest.raises(SettingsError):
        choose_device("cpu:1")
    assert choose_device("cpu") == torch.device("cpu")


def test_half_precision_follows_the_device():
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu) == torch.float32
    assert choose_dtype("bf16", cpu) == torch.bfloat16
    with pytest.raises(SettingsError, match="fp16"):
        choose_dtype("fp16", cpu)


def test_memory_and_cpus_are_known():
    assert free_bytes(torch.device("cpu")) > 1 << 20
    assert usable_cpus() >= 1


def test_running_out_of_memory_is_recognised_on_a_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("something else"))
