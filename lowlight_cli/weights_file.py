"""Read weights from files that nobody vouches for, and write our own.

Two containers are read: safetensors, and the zip archives that `torch.save` has written since PyTorch 1.6. A
pickle inside the latter can name any function, so three walls stand before it: the archive's directory is
checked and the archive written anew (what torch parses is never the file itself), the pickle may name only
the few things that plain tensors need, and torch reads it with `weights_only=True`. Older formats are
refused.

What comes out is checked before any arithmetic: a tensor of 2^20 x 2^20 numbers over 64 bytes loads at once
and fills the memory at the first `.float()`.
"""

import hashlib
import io
import json
import pickletools
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from lowlight_cli.atomic import write_atomically
from lowlight_cli.errors import WeightsError
from lowlight_cli.weights_kind import weights_kind

_FILE_LIMIT = 1 << 29
_PICKLE_LIMIT = 1 << 24
_MEMBER_LIMIT = 20_000
_HEADER_LIMIT = 1 << 24
_NOTHING = 1e-30
_ALIAS_LIMIT = 8  # several names may share one tensor; more than this many times the file is a bomb

# Where the tensors lie in checkpoints seen in the wild; a bare dict of tensors has none of these keys.
_CONTAINERS = ("params", "model_state_dict", "state_dict", "model")
_CHECKPOINT = {"network", "optimiser", "recipe"}  # of `lowlight train`
_DATA_PARALLEL_PREFIX = "module."

_PICKLE_NAMES = {
    "collections OrderedDict",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_tensor_v2",
    *(
        f"torch {kind}Storage"
        for kind in ("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
    ),
}
_REFUSED_OPCODES = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID"}

_DTYPES = {
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
}


@dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds: CPU tensors by name, text metadata, and the sha256 of the file's bytes."""

    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    sha256: str


def read_weights(source: Path | bytes, *, sha256: str | None = None) -> WeightsFile:
    """Read tensors from a file, or from its bytes; the digest is that of the very bytes that are parsed.

    Tensors are finite, dense, on the CPU, in the file's own dtypes and shapes, without `module.` prefixes.

    Raises:
        WeightsError: the file cannot be read, has not the digest `sha256`, or is no file of plain tensors.
    """
    described_as = "the weights file" if isinstance(source, bytes) else str(source)
    data = source if isinstance(source, bytes) else _read_bytes(source)
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"{described_as} changed or is damaged: its sha256 is {found} where {sha256} is right; "
            "`lowlight weights download` or `import` brings the right file"
        )
    try:
        tensors, metadata = _parse(data)
        _refuse_odd_tensors(tensors, len(data))
    except WeightsError as error:
        raise WeightsError(f"{described_as} {error}") from error
    return WeightsFile(tensors=tensors, metadata=metadata, sha256=found)


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` (any device, any strides) and `metadata` to a safetensors file, complete or not at all.

    The same tensors and metadata give the same bytes.

    Raises:
        OutputError: the file cannot be written.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    blob = safetensors.torch.save(plain)
    # The library writes metadata in random order, so we put it into the header ourselves, padded to 8 bytes.
    start = 8 + int.from_bytes(blob[:8], "little")
    header = {"__metadata__": dict(sorted(metadata.items())), **json.loads(blob[8:start])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, len(text).to_bytes(8, "little") + text + blob[start:], overwrite=True)


def load_strict(network: nn.Module, tensors: Mapping[str, Tensor], *, described_as: str) -> None:
    """Give `network` copies of `tensors`, which must have exactly its names and shapes; dtypes are converted.

    Numbers nearer to 0 than 1e-30 become 0: weight decay leaves such ones, and a CPU takes many times as long for what
    is made of them.

    The network may have been built on the meta device, where it takes neither memory nor random numbers; it is on the
    CPU then. `described_as` says what was read and with which settings, for the message.

    Raises:
        WeightsError: a name is missing or unexpected or a shape differs; two of each are named.
    """
    expected = network.state_dict()
    faults = {
        "lacks": [repr(name) for name in expected if name not in tensors],
        "has the unknown": [repr(name[:60]) for name in tensors if name not in expected],
        "has another shape at": [
            f"{name!r} ({_shape(tensors[name])} where {_shape(expected[name])} is expected)"
            for name in expected
            if name in tensors and tensors[name].shape != expected[name].shape
        ],
    }
    if told := [f"{fault} {_first_two(names)}" for fault, names in faults.items() if names]:
        raise WeightsError(f"{described_as} does not fit: it {', it '.join(told)}")
    copies = {name: tensor.to(expected[name].dtype, copy=True).contiguous() for name, tensor in tensors.items()}
    for copy in copies.values():
        copy[copy.abs() < _NOTHING] = 0
    network.load_state_dict(copies, strict=True, assign=True)


def _read_bytes(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise WeightsError(f"there is no weights file {path}")
        if path.stat().st_size > _FILE_LIMIT:
            raise WeightsError(f"{path} is larger than {_FILE_LIMIT >> 20} MiB, more than any weights we know")
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error


def _parse(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    if weights_kind(data) == "archive":
        return _plain_tensors(_load_archive(_rewritten_archive(data))), {}
    return _parse_safetensors(data)


def _parse_safetensors(data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    header_bytes = int.from_bytes(data[:8], "little")
    if header_bytes > min(_HEADER_LIMIT, len(data) - 8):
        raise WeightsError("is a damaged safetensors file: its header is cut off or far too long")
    try:
        tensors = safetensors.torch.load(data)
        # The library checks the header strictly but does not hand out the metadata of bytes.
        metadata = json.loads(data[8 : 8 + header_bytes]).get("__metadata__", {})
    except Exception as error:  # whatever the library raises on hostile bytes means the same to us
        raise WeightsError(f"is a damaged safetensors file ({_brief(error)})") from error
    return tensors, dict(metadata)


def _rewritten_archive(data: bytes) -> io.BytesIO:
    """Check the archive's directory, then copy what torch needs into an archive of our own writing.

    Python and torch read zip files with different code; a file made to look harmless to one and not to the
    other has no chance when torch only ever sees our copy.
    """
    rewritten = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(rewritten, "w") as copy:
            for name, member in _checked_members(archive, len(data)).items():
                content = archive.read(member)
                if name == "data.pkl":
                    _refuse_strange_pickle(content)
                copy.writestr(f"archive/{name}", content)
    except WeightsError:
        raise
    except Exception as error:  # zipfile raises half a dozen types on damaged archives
        raise WeightsError(f"is a damaged PyTorch file ({_brief(error)})") from error
    rewritten.seek(0)
    return rewritten


def _checked_members(archive: zipfile.ZipFile, file_bytes: int) -> dict[str, zipfile.ZipInfo]:
    """Return the members that torch needs by their names below the archive's one folder."""
    members = archive.infolist()
    if len(members) > _MEMBER_LIMIT:
        raise WeightsError(f"holds {len(members)} parts, more than any weights we know")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise WeightsError("is a compressed archive, which torch.save never writes")
    # Overlapping members can make stored data a bomb too.
    if sum(member.file_size for member in members) > file_bytes:
        raise WeightsError("is an archive whose parts claim more bytes than it has")
    by_name = {member.filename.partition("/")[2]: member for member in members}
    if len(by_name) != len(members) or "data.pkl" not in by_name:
        raise WeightsError("is a zip archive but not one of PyTorch weights")
    if by_name["data.pkl"].file_size > _PICKLE_LIMIT:
        raise WeightsError("holds a directory of tensors that is far too long")
    return {
        name: member
        for name, member in by_name.items()
        if name in ("data.pkl", "version", "byteorder") or name.startswith("data/")
    }


def _refuse_strange_pickle(content: bytes) -> None:
    """Refuse a pickle that names anything a dict of tensors does not need, before it is run."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in _REFUSED_OPCODES or (opcode.name == "GLOBAL" and argument not in _PICKLE_NAMES):
            named = str(argument or opcode.name)[:60]
            raise WeightsError(f"holds more than tensors (it names {named!r}): save the tensors alone")


def _load_archive(archive: io.BytesIO) -> object:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(archive, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen types on damaged files
        raise WeightsError(f"is a damaged PyTorch file ({_brief(error)})") from error


def _plain_tensors(loaded: object) -> dict[str, Tensor]:
    """Find the dict of tensors in what a checkpoint holds, and strip the prefix of data-parallel training."""
    if not isinstance(loaded, dict):
        raise WeightsError("holds no dict of tensors")
    # dict's own methods, because a pickle can give an OrderedDict an `items` of its choice.
    content = dict(dict.items(loaded))
    container = next((key for key in _CONTAINERS if isinstance(content.get(key), dict)), None)
    if container is not None:
        content = dict(dict.items(content[container]))
    if content.keys() >= _CHECKPOINT:
        raise WeightsError("is the checkpoint of a training: its weights are the .safetensors file beside it")
    for name, value in content.items():
        if not isinstance(name, str) or type(value) not in (Tensor, nn.Parameter):
            raise WeightsError(f"holds no dict of tensors: {str(name)[:60]!r} is of type {type(value).__name__}")
    prefix = _DATA_PARALLEL_PREFIX if all(name.startswith(_DATA_PARALLEL_PREFIX) for name in content) else ""
    return {name.removeprefix(prefix): Tensor.detach(value) for name, value in content.items()}


def _refuse_odd_tensors(tensors: Mapping[str, Tensor], file_bytes: int) -> None:
    """Check what tensors declare against what the file can hold, then that every number is finite."""
    if not tensors:
        raise WeightsError("holds no tensors")
    declared = 0
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.dtype not in _DTYPES or tensor.device.type != "cpu":
            raise WeightsError(f"holds a tensor of an unusual kind: {name[:60]!r} is {tensor.dtype}")
        size = tensor.numel() * tensor.element_size()
        if size > tensor.untyped_storage().nbytes():
            raise WeightsError(f"holds a tensor that claims more numbers than there are: {name[:60]!r}")
        declared += size
    if declared > _ALIAS_LIMIT * file_bytes:
        raise WeightsError("holds tensors that share their numbers far too often")
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise WeightsError(f"holds numbers that are not finite, in {name[:60]!r}")


def _shape(tensor: Tensor) -> str:
    return "x".join(str(side) for side in tensor.shape) or "scalar"


def _first_two(names: list[str]) -> str:
    more = f" and {len(names) - 2} more" if len(names) > 2 else ""
    return ", ".join(names[:2]) + more


def _brief(error: Exception) -> str:
    """The first line of a library's message, short enough for our one sentence."""
    lines = str(error).strip().splitlines()
    return lines[0][:120] if lines else type(error).__name__
