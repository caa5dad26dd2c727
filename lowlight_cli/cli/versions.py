"""`lowlight --version`: one line at once, or with `-v` all that a report of a fault should say."""

import importlib.metadata
import importlib.util
import platform
import sys

from lowlight_cli import __version__
from lowlight_cli.settings import Compute

_PARTS = ("torch", "numpy", "pillow", "av", "safetensors", "typer")
_EXTRAS = {"heic": "pillow_heif", "raw": "rawpy", "ray": "ray", "onnx": "onnx", "metrics": "piq"}


def version_line() -> str:
    """Return the versions that matter most, without loading any of them."""
    torch = importlib.metadata.version("torch")
    return f"lowlight {__version__} (torch {torch}, Python {platform.python_version()}, {platform.platform()})"


def version_page() -> str:
    """Return versions, devices, memory, extras and folders, a line each. This loads torch."""
    import av
    import torch

    from lowlight_cli import cache
    from lowlight_cli.device import choose_device, choose_dtype, describe_device, free_bytes, precision_name
    from lowlight_cli.machine import usable_cpus

    device = choose_device(Compute.device)
    found = [torch.device("cpu"), *(torch.device("cuda", place) for place in range(torch.cuda.device_count()))]
    found += [torch.device("mps")] if torch.backends.mps.is_available() else []
    ffmpeg = ".".join(map(str, av.library_versions.get("libavcodec", ())))
    extras = {name: importlib.util.find_spec(module) is not None for name, module in _EXTRAS.items()}
    facts = {
        "lowlight": __version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "system": f"{platform.platform()}, {usable_cpus()} CPUs",
        **{name: importlib.metadata.version(name) for name in _PARTS},
        "libavcodec": ffmpeg,
        "devices": "; ".join(f"{describe_device(each)}, {free_bytes(each) / 1e9:.1f} GB free" for each in found),
        "chosen": f"{device}, {precision_name(choose_dtype(Compute.precision, device))}",
        "extras": ", ".join(f"{name} {'yes' if there else 'no'}" for name, there in extras.items()),
        "cache": str(cache.cache_folder()),
    }
    width = max(map(len, facts))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts.items())
