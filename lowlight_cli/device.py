"""Which device to compute on, how precisely, and how much memory there is."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from lowlight_cli import machine
from lowlight_cli.errors import DeviceError, ResourceError, SettingsError
from lowlight_cli.settings import Precision, check_device

ALL_GPUS = "cuda:all"

_AMPERE = 8  # NVIDIA's compute capability
# What torch's CPU allocator says; CUDA and Triton, of pinned memory, contexts and kernels; cuBLAS, cuDNN and cuFFT.
_OUT_OF_MEMORY = ("DefaultCPUAllocator", "CUDA error: out of memory", "[CUDA]: out of memory", "_ALLOC_FAILED")


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device called `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.

    `auto` takes the first of CUDA, MPS and CPU that is there. Raises SettingsError for another word and DeviceError
    for a device that is not on this machine: there is no silent fallback.
    """
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", 0)
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if wanted == ALL_GPUS:
        raise SettingsError("--device cuda:all spreads files over GPUs, and this work is not made of files")
    check_device(wanted)
    kind, _, index = wanted.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            found = f"{count} CUDA device(s)" if count else "no CUDA device"
            raise DeviceError(f"{wanted} is not available: this machine has {found}; use --device auto or cpu")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("mps is not available on this machine; use --device auto or cpu")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device(kind)


def choose_devices(wanted: str = "auto") -> tuple[torch.device, ...]:
    """Return every CUDA device for `cuda:all`, else the one that `choose_device` returns; raises as it does."""
    if wanted != ALL_GPUS:
        return (choose_device(wanted),)
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        raise DeviceError("cuda:all is not available: this machine has no CUDA device; use --device auto or cpu")
    return tuple(torch.device("cuda", index) for index in range(count))


def choose_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the working dtype: `auto` is float32 on a CPU and on MPS, bfloat16 on a CUDA device that has it."""
    if precision == "auto":
        return torch.bfloat16 if device.type == "cuda" and has_bf16(device) else torch.float32
    if precision == "fp16" and device.type == "cpu":
        raise SettingsError("--precision fp16 needs a GPU; a CPU offers fp32 and bf16")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def has_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 is quick here: on a CPU it needs AVX-512, AMX or AVX-NE-CONVERT, on NVIDIA's GPUs Ampere.

    Without them a CPU falls back on loops that are a hundred times slower than float32, and a GPU computes in float32
    and converts.
    """
    if device.type == "cuda" and torch.version.hip is None:
        return torch.cuda.get_device_capability(device)[0] >= _AMPERE
    if device.type != "cpu":
        return True
    onednn: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return onednn and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def usable_precision(precision: Precision, device: torch.device) -> Precision:
    """Return the precision to compute in where `precision` is asked for: bf16 is fp32 on a CPU that has no bf16."""
    return "fp32" if precision == "bf16" and not has_bf16(device) else precision


def precision_name(dtype: torch.dtype) -> str:
    """Return the name a user gives this dtype: fp32, bf16 or fp16."""
    return {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}[dtype]


def precision_used(precision: Precision, device: torch.device) -> str:
    """Return the name of the precision that is computed in where `precision` is asked for."""
    return precision_name(choose_dtype(usable_precision(precision, device), device))


def describe_device(device: torch.device) -> str:
    """Return a device's name for a person: its model and, for a CPU, the number of threads."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    threads = torch.get_num_threads()
    return f"{device} ({threads} thread{'s' if threads > 1 else ''})" if device.type == "cpu" else str(device)


@contextmanager
def explained_memory(told: str) -> Iterator[None]:
    """Turn running out of memory within the block into a ResourceError that says `told`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ResourceError(told) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an exception means that memory ran out; only one allocator of torch's has a type for it."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in _OUT_OF_MEMORY)


def bound_threads() -> None:
    """Keep torch to the CPUs this process may use; a number set lower (`OMP_NUM_THREADS`) stays.

    OpenMP obeys the affinity but not a container's quota: more threads than that stop one another.
    """
    if torch.get_num_threads() > machine.usable_cpus():
        torch.set_num_threads(machine.usable_cpus())


def free_bytes(device: torch.device) -> int:
    """Return the memory that a computation on this device may take now, in bytes (a guess if unknown)."""
    if device.type == "cuda":
        # What torch keeps for its next tensors is free, too.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + kept
    return machine.free_ram_bytes()
