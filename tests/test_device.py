"""Devices and precisions: what is asked for, or an error."""

import pytest
import torch

from lowlight_cli.device import (
    bound_threads,
    choose_device,
    choose_dtype,
    has_bf16,
    is_out_of_memory,
    usable_precision,
)
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


def test_bf16_is_fp32_on_a_cpu_without_it(monkeypatch):
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert usable_precision("bf16", cpu) == ("bf16" if has_bf16(cpu) else "fp32")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert usable_precision("bf16", cpu) == "fp32"
    assert [usable_precision(each, cpu) for each in ("auto", "fp32", "fp16")] == ["auto", "fp32", "fp16"]
    for capability, usable, automatic in (((8, 0), "bf16", torch.bfloat16), ((7, 5), "fp32", torch.float32)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert usable_precision("bf16", gpu) == usable
        assert choose_dtype("auto", gpu) == automatic


def test_threads_stay_within_the_cpus_we_may_use(monkeypatch):
    before, told = torch.get_num_threads(), []
    monkeypatch.setattr(torch, "set_num_threads", told.append)
    for cpus in (before, before + 1):
        monkeypatch.setattr("lowlight_cli.machine.usable_cpus", lambda cpus=cpus: cpus)
        bound_threads()
    assert told == []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    monkeypatch.setattr("lowlight_cli.machine.usable_cpus", lambda: 2)
    bound_threads()
    assert told == [2]


def test_running_out_of_memory_is_recognised_on_a_cpu():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("something else"))


@pytest.mark.parametrize(
    "told",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuFFT error: CUFFT_ALLOC_FAILED",
        "Triton Error [CUDA]: out of memory",
        "CUDA error: out of memory",
    ],
)
def test_memory_that_a_gpus_libraries_run_out_of_is_recognised(told):
    assert is_out_of_memory(RuntimeError(told))
