"""Export to a file: beside its name, read back and held against the network, and only then under its name."""

import io
import json
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from lowlight_cli import __version__
from lowlight_cli.atomic import atomic_path
from lowlight_cli.enhancer import Model
from lowlight_cli.errors import NumericsError, SettingsError
from lowlight_cli.export.graphs import graph_of
from lowlight_cli.results import name_of
from lowlight_cli.settings import Compute, ExportFormat

TOLERANCE = 1e-3  # a quarter of a step of 8 bits
# Odd, tiny, wider than the preview; dark ones, one that is well lit, and black.
_CHECKED = (((64, 96), 0.1), ((33, 50), 0.02), ((1, 1), 0.1), ((57, 403), 0.05), ((40, 24), 1.0), ((16, 17), 0.0))

Run = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Exported:
    """A file that was written, and its results' largest difference to the network's, of values in [0, 1]."""

    path: Path
    format: ExportFormat
    bytes: int
    difference: float
    pictures: int

    def as_json(self) -> dict[str, object]:
        """Return what `--json` prints."""
        return {**asdict(self), "path": name_of(self.path)}


def export_model(model: Model, target: Path, format: ExportFormat, *, overwrite: bool = False) -> Exported:
    """Write a model as ONNX or TorchScript, in float32 on the CPU.

    It has one input `image` and one output `enhanced`, both `(1, 3, height, width)`, sRGB in [0, 1], any size.

    Raises SettingsError without the libraries or a network, WeightsError, OutputError, and NumericsError when the
    file's results are not the network's; then there is no file.
    """
    require_libraries(format)
    graph = graph_of(model, real=format == "onnx")
    enhance = model.on(Compute("cpu", "fp32")).backend(torch.float32).enhance
    with atomic_path(target, overwrite=overwrite) as part, torch.no_grad():
        write, load = (_write_onnx, _load_onnx) if format == "onnx" else (_write_torchscript, _load_torchscript)
        write(graph, part, _described(model))
        difference = _largest_difference(load(part), enhance)
        size = part.stat().st_size
        if not difference <= TOLERANCE:
            raise NumericsError(f"the exported network differs from ours by {difference:.2g}; nothing was written")
    return Exported(target, format, size, difference, len(_CHECKED))


def require_libraries(format: ExportFormat) -> None:
    """Refuse a format whose libraries are not there; raises SettingsError."""
    if format == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            _library(name)


def _library(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError as error:
        raise SettingsError(f"ONNX needs an extra ({name}): pip install 'lowlight-cli[onnx]'") from error


def _described(model: Model) -> dict[str, str]:
    assert model.weights is not None
    return {
        "made_by": f"lowlight {__version__}",
        "model": model.name,
        "backend": model.backend,
        "weights_sha256": model.weights.sha256,
        "image": "RGB, sRGB-encoded, float32 in [0, 1], (1, 3, height, width)",
    }


def _write_onnx(graph: nn.Module, part: Path, described: dict[str, str]) -> None:
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(action="ignore"):  # of torch's own export about itself
        program = torch.onnx.export(
            graph.eval(),
            (_picture((64, 96), 0.1),),
            dynamo=True,
            dynamic_shapes=(dynamic,),
            input_names=["image"],
            output_names=["enhanced"],
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(described)
    program.save(part, external_data=False)


def _load_onnx(part: Path) -> Run:
    runtime = _library("onnxruntime")
    session = runtime.InferenceSession(part.read_bytes(), providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0])


def _write_torchscript(graph: nn.Module, part: Path, described: dict[str, str]) -> None:
    with warnings.catch_warnings(action="ignore"):  # tracing is deprecated in favour of formats that need this torch
        traced = torch.jit.trace(graph.eval(), (_picture((64, 96), 0.1),), check_trace=False)  # type: ignore[no-untyped-call]
        content = io.BytesIO()  # torch's own writer aborts the process on a full disk
        torch.jit.save(traced, content, _extra_files={"lowlight.json": json.dumps(described)})
    part.write_bytes(content.getbuffer())


def _load_torchscript(part: Path) -> Run:
    with warnings.catch_warnings(action="ignore"):
        loaded: Run = torch.jit.load(str(part), map_location="cpu")  # type: ignore[no-untyped-call]
    return loaded


def _picture(size: tuple[int, int], light: float) -> Tensor:
    """Return a random picture, the same every time."""
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(size[0])) * light


def _largest_difference(run: Run, enhance: Run) -> float:
    pictures = [_picture(size, light) for size, light in _CHECKED]
    return max(float((run(picture) - enhance(picture)).abs().max()) for picture in pictures)
