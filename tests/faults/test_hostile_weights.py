"""Weights files that nobody vouches for: nothing is executed, memory is bounded, each refusal is one sentence."""

import io
import json
import math
import pickle
import random
import resource
import struct
import subprocess
import tempfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lowlight_cli.backends import load_backend
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.backends.zeroig.network import ZeroIG
from lowlight_cli.errors import WeightsError
from lowlight_cli.manifest import read_manifest
from lowlight_cli.weights_file import WeightsFile, load_strict, read_weights, write_weights

SHARED = Path(__file__).resolve().parents[2].parent / "shared"

ON_CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
TENSORS = {"intro.weight": torch.arange(24.0).reshape(2, 3, 2, 2), "intro.bias": torch.tensor([1.0, -2.0])}


def saved(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def repacked(
    data: bytes, change: Callable[[str, bytes], bytes] = lambda _, content: content, *, compression: int = 0
) -> bytes:
    """Write the archive anew with its parts changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(buffer, "w", compression) as new:
        for member in old.infolist():
            content = change(member.filename.partition("/")[2], old.read(member))
            new.writestr(member.filename, content)
    return buffer.getvalue()


def with_pickle(content: bytes) -> bytes:
    return repacked(saved(TENSORS), lambda name, old: content if name == "data.pkl" else old)


def same(read: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return read.keys() == expected.keys() and all(torch.equal(read[name], expected[name]) for name in expected)


@pytest.mark.parametrize("container", ["params", "model_state_dict", "state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_tensors_are_found_in_every_shape_of_checkpoint(container: str | None, prefix: str) -> None:
    tensors = OrderedDict((prefix + name, tensor) for name, tensor in TENSORS.items())
    content = tensors if container is None else {container: tensors, "epoch": 7, "best": 21.5, "note": "text"}
    assert same(read_weights(saved(content)).tensors, TENSORS)


def test_a_saved_module_and_its_parameters_are_read() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    assert same(read_weights(saved(network.state_dict())).tensors, dict(network.state_dict()))
    assert same(read_weights(saved(dict(network.named_parameters()))).tensors, dict(network.named_parameters()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8])
def test_dtypes_and_strides_survive_both_containers(dtype: torch.dtype, tmp_path: Path) -> None:
    tensors = {
        "a": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1).to(dtype),
        "scalar": torch.tensor(3, dtype=dtype),
    }
    write_weights(tmp_path / "a.safetensors", tensors, {"width": "16"})
    for read in (read_weights(saved(tensors)), read_weights(tmp_path / "a.safetensors")):
        assert same(read.tensors, tensors)
        assert read.tensors["a"].dtype == dtype


@settings(max_examples=25)
@given(
    st.dictionaries(st.text(max_size=8).filter(lambda name: name != "__metadata__"), st.integers(0, 5), min_size=1),
    st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4),
)
def test_what_is_written_is_read_again(sizes: dict[str, int], metadata: dict[str, str]) -> None:
    tensors = {name: torch.arange(float(size)) for name, size in sizes.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        write_weights(path, tensors, metadata)
        read = read_weights(path)
    assert same(read.tensors, tensors)
    assert read.metadata == metadata


def test_the_same_tensors_and_metadata_give_the_same_bytes(tmp_path: Path) -> None:
    metadata = {letter: letter for letter in "abcdefgh"}
    write_weights(tmp_path / "a.safetensors", TENSORS, metadata)
    write_weights(tmp_path / "b.safetensors", TENSORS, dict(reversed(metadata.items())))
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    assert safetensors.torch.load_file(tmp_path / "a.safetensors").keys() == TENSORS.keys()


def test_the_digest_is_checked_before_anything_is_parsed(tmp_path: Path) -> None:
    data = saved(TENSORS)
    digest = read_weights(data).sha256
    path = tmp_path / "weights.pt"
    path.write_bytes(data)
    assert read_weights(path, sha256=digest).sha256 == digest
    path.write_bytes(data[:-1] + b"\x01")
    with pytest.raises(WeightsError, match=rf"weights\.pt changed or is damaged: its sha256 is .* where {digest}"):
        read_weights(path, sha256=digest)


@pytest.mark.parametrize("name", ["LOL", "LSRW-Huawei", "LSRW-Nikon"])
def test_published_zeroig_files_are_read(name: str) -> None:
    path = SHARED / "weights" / "zeroig" / f"{name}.pt"
    if not path.exists():
        pytest.skip("the published ZERO-IG files are not beside this checkout")
    entry = read_manifest()[f"zeroig-{name.lower()}"]
    weights = read_weights(path, sha256=entry.sha256)
    assert path.stat().st_size == entry.bytes
    assert sum(tensor.numel() for tensor in weights.tensors.values()) == 198_256


class Calls:
    """Pickles to a call of `function`, as an attacker would write it."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def pickled(content: object, *, protocol: int = 2) -> bytes:
    return with_pickle(pickle.dumps(content, protocol=protocol))


def safetensors_file(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def overlapping() -> bytes:
    """An archive whose directory names one stored part many times: it unpacks to far more than it is."""
    data = repacked(saved({"a": torch.zeros(50_000)}))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        start, count = archive.start_dir, len(archive.infolist())
    directory = data[start:-22]
    at = directory.index(b"archive/data/0") - 46
    part = directory[at : at + 46 + len("archive/data/0")]
    directory += b"".join(part.replace(b"/data/0", b"/data/%d" % number) for number in range(1, 9))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count + 8, count + 8, len(directory), start, 0)
    return data[:start] + directory + end


def reshaped(size: tuple[int, ...], stride: tuple[int, ...], *, numbers: int = 16) -> bytes:
    return saved({"a": torch.zeros(numbers).as_strided(size, stride)})


def claiming(count: int) -> bytes:
    """A pickle whose storage claims more numbers than its part of the archive has."""
    data = saved({"a": torch.zeros(8)})
    return repacked(
        data,
        lambda name, old: old.replace(b"K\x08t", b"J" + struct.pack("<i", count) + b"t") if name == "data.pkl" else old,
    )


HEADER = {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}

# Each crafted file with a piece of the sentence that refuses it.
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "os.system": (
        lambda: pickled(Calls(__import__("os").system, "echo hacked >&2")),
        "it names 'posix system'",
    ),
    "eval": (lambda: pickled(Calls(eval, "1")), "it names '__builtin__ eval'"),
    "eval by protocol 4": (lambda: pickled(Calls(eval, "1"), protocol=4), "it names 'STACK_GLOBAL'"),
    "getattr": (lambda: pickled(Calls(getattr, 1, "real")), "it names '__builtin__ getattr'"),
    "subprocess": (lambda: pickled(Calls(subprocess.call, ["true"])), "it names 'commands call'"),
    "bytearray bomb": (lambda: pickled(Calls(bytearray, 1 << 40)), "it names '__builtin__ bytearray'"),
    "tensor bomb": (lambda: pickled(Calls(torch.Tensor, 1 << 20, 1 << 20)), "holds more than tensors"),
    "torch.load in torch.load": (
        lambda: pickled(Calls(torch.load, "/etc/passwd")),
        "holds more than tensors",
    ),
    "a class instance": (lambda: with_pickle(b"(i__builtin__\nobject\n."), "it names '__builtin__ object'"),
    "new object": (lambda: with_pickle(b"\x80\x02ccollections\nOrderedDict\n)\x81."), "it names 'NEWOBJ'"),
    "extension registry": (lambda: with_pickle(b"\x80\x02\x82\x01."), "holds more than tensors"),
    "a whole module": (lambda: saved(nn.Linear(2, 2)), "holds more than tensors"),
    "numpy numbers": (lambda: saved({"a": TENSORS["intro.bias"].numpy()}), "holds more than tensors"),
    "pickle cut off": (lambda: with_pickle(b"\x80\x02}q\x00"), "damaged PyTorch file"),
    "pickle of nothing": (lambda: with_pickle(b""), "damaged PyTorch file"),
    "pickle stack underflow": (lambda: with_pickle(b"\x80\x02R."), "damaged PyTorch file"),
    "long strings that are not there": (
        lambda: with_pickle(b"\x80\x02X\xff\xff\xff\x7f."),
        "damaged PyTorch file",
    ),
    "memo far away": (lambda: with_pickle(b"\x80\x02}r\xff\xff\xff\x7f."), "holds no tensors"),
    "deep nesting": (
        lambda: with_pickle(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."),
        "no dict of tensors",
    ),
    "a list": (lambda: saved([torch.zeros(2)]), "holds no dict of tensors"),
    "one tensor": (lambda: saved(torch.zeros(2)), "holds no dict of tensors"),
    "numbers only": (lambda: saved({"epoch": 3}), "'epoch' is of type int"),
    "numbers for names": (lambda: saved({3: torch.zeros(2)}), "holds no dict of tensors"),
    "a dict with items of its own": (
        lambda: with_pickle(
            b"\x80\x02ccollections\nOrderedDict\n)R}X\x05\x00\x00\x00itemsctorch._utils\n_rebuild_tensor_v2\nsb."
        ),
        "holds no tensors",
    ),
    "empty dict": (lambda: saved({}), "holds no tensors"),
    "empty container": (lambda: saved({"params": {}}), "holds no tensors"),
    "list in the container": (lambda: saved({"params": {"a": [1]}}), "'a' is of type list"),
    "2^20 x 2^20 over 64 bytes": (lambda: reshaped((1 << 20, 1 << 20), (0, 0)), "claims more numbers"),
    "one expanded side": (lambda: reshaped((1 << 30, 16), (0, 1)), "claims more numbers"),
    "overlapping windows": (lambda: reshaped((16, 16), (1, 0)), "claims more numbers"),
    "one tensor under many names": (
        lambda: saved(dict.fromkeys([f"a{index}" for index in range(200)], torch.zeros(100_000))),
        "share their numbers far too often",
    ),
    "storage larger than its part": (lambda: claiming(1 << 20), "damaged PyTorch file"),
    "storage of negative size": (lambda: claiming(-8), "damaged PyTorch file"),
    "NaN": (lambda: saved({"a": torch.tensor([1.0, float("nan")])}), "not finite, in 'a'"),
    "infinity in half precision": (lambda: saved({"a": torch.tensor([1e9]).half()}), "not finite, in 'a'"),
    "complex numbers": (
        lambda: saved({"a": torch.zeros(2, dtype=torch.complex64)}),
        "holds more than tensors",
    ),
    "sparse tensor": (lambda: saved({"a": torch.eye(2).to_sparse()}), "holds more than tensors"),
    "meta tensor": (lambda: saved({"a": torch.empty(1 << 30, device="meta")}), "holds more than tensors"),
    "zip bomb": (
        lambda: repacked(saved({"a": torch.zeros(10_000_000)}), compression=zipfile.ZIP_DEFLATED),
        "is a compressed archive",
    ),
    "overlapping zip": (overlapping, "claim more bytes than it has"),
    "zip of something else": (
        lambda: repacked(saved(TENSORS), lambda _, old: old).replace(b"data.pkl", b"pata.dkl"),
        "not one of PyTorch weights",
    ),
    "TorchScript": (lambda: scripted(), "holds more than tensors"),
    "zip cut off": (lambda: saved(TENSORS)[:-30], "damaged PyTorch file"),
    "zip without its parts": (
        lambda: repacked(saved(TENSORS)).replace(b"data/0", b"data/9"),
        "damaged PyTorch file",
    ),
    "wrong checksum": (
        lambda: saved({"a": torch.ones(64)}).replace(b"\x00\x00\x80?" * 8, b"\x00\x00\x80@" * 8),
        "damaged",
    ),
    "a pickle from before 1.6": (
        lambda: legacy({"a": torch.zeros(2)}),
        "from before PyTorch 1.6, which is not read: save it again as safetensors",
    ),
    "an old pickle with a call": (
        lambda: pickle.dumps(Calls(eval, "1"), protocol=2),
        "from before PyTorch 1.6",
    ),
    "nothing": (lambda: b"", "is neither a safetensors file nor a PyTorch file"),
    "a picture": (
        lambda: b"\x89PNG\r\n\x1a\n" + bytes(100),
        "is neither a safetensors file nor a PyTorch file",
    ),
    "a Git LFS pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
    "a web page": (lambda: b"<!DOCTYPE html><html></html>", "is neither"),
    "header longer than the file": (
        lambda: safetensors_file(HEADER, bytes(8), length=1 << 40),
        "cut off or far too",
    ),
    "header of 2^63": (
        lambda: safetensors_file(HEADER, bytes(8), length=(1 << 63) + 1),
        "cut off or far too",
    ),
    "header cut off": (lambda: safetensors_file(HEADER, bytes(8), length=9), "damaged safetensors file"),
    "header that is a list": (lambda: safetensors_file(b"{]" + b" " * 30), "damaged safetensors file"),
    "header that nests": (lambda: safetensors_file(b'{"a":' * 100_000), "damaged safetensors file"),
    "metadata that is a list": (
        lambda: safetensors_file({"__metadata__": [1], **HEADER}, bytes(8)),
        "damaged",
    ),
    "metadata of numbers": (
        lambda: safetensors_file({"__metadata__": {"a": 1}, **HEADER}, bytes(8)),
        "damaged",
    ),
    "data cut off": (lambda: safetensors_file(HEADER, bytes(4)), "damaged safetensors file"),
    "data left over": (lambda: safetensors_file(HEADER, bytes(12)), "damaged safetensors file"),
    "huge shape": (
        lambda: safetensors_file(
            {"a": {"dtype": "F32", "shape": [1 << 40, 1 << 40], "data_offsets": [0, 8]}}, bytes(8)
        ),
        "damaged safetensors file",
    ),
    "negative shape": (
        lambda: safetensors_file({"a": {"dtype": "F32", "shape": [-2, -1], "data_offsets": [0, 8]}}, bytes(8)),
        "damaged safetensors file",
    ),
    "offsets backwards": (
        lambda: safetensors_file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, bytes(8)),
        "damaged safetensors file",
    ),
    "unknown dtype": (
        lambda: safetensors_file({"a": {"dtype": "F33", "shape": [2], "data_offsets": [0, 8]}}, bytes(8)),
        "damaged safetensors file",
    ),
    "NaN in safetensors": (
        lambda: safetensors_file(HEADER, struct.pack("<2f", 1, float("nan"))),
        "not finite, in 'a'",
    ),
    "no tensors in safetensors": (lambda: safetensors_file({}), "holds no tensors"),
}


def scripted() -> bytes:
    """A TorchScript archive in its outline: torch.jit is deprecated, but its files are about."""
    return repacked(
        saved(TENSORS), lambda name, old: b"\x80\x02c__torch__\nNetwork\n)R." if name == "data.pkl" else old
    )


def legacy(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@contextmanager
def little_memory(spare: int = 384 << 20) -> Iterator[None]:
    """Let this process grow by `spare` bytes of address space at most, where the system can say so."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    statm = Path("/proc/self/statm")
    if statm.exists():
        pages = int(statm.read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + spare, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_file_is_refused_in_one_sentence(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    craft, expected = HOSTILE[case]
    data = craft()
    with little_memory(), pytest.raises(WeightsError) as caught:
        read_weights(data)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert "hacked" not in capfd.readouterr().err


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Damage a few bytes, cut, or copy a piece to another place."""
    changed = bytearray(data)
    kind = chance.randrange(4)
    if kind == 0:
        return data[: chance.randrange(len(data))]
    if kind == 1:
        start, end = sorted(chance.sample(range(len(data)), 2))
        at = chance.randrange(len(data))
        changed[at:at] = data[start : min(end, start + 64)]
    for _ in range(chance.randint(1, 8)):
        changed[chance.randrange(len(changed))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    return bytes(changed)


def survive_mutants(count: int, seed: int) -> None:
    """Damage files, and pickles inside intact archives, `count` times: a WeightsError or finite tensors."""
    chance = random.Random(seed)
    archive = saved({"params": TENSORS})
    with zipfile.ZipFile(io.BytesIO(archive)) as parts:
        content = parts.read("archive/data.pkl")
    plain = safetensors.torch.save(TENSORS, {"width": "16"})
    outcomes = {"read": 0, "refused": 0}
    for index in range(count):
        whole = (plain, archive)[index % 2]
        data = with_pickle(mutated(content, chance)) if index % 4 == 1 else mutated(whole, chance)
        try:
            tensors = read_weights(data).tensors
        except WeightsError:
            outcomes["refused"] += 1
        else:
            outcomes["read"] += 1
            assert all(tensor.double().isfinite().all() for tensor in tensors.values())
    assert all(outcomes.values()), outcomes


def test_damaged_files_are_refused_or_read_whole() -> None:
    with little_memory():
        survive_mutants(400, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 20))
def test_ten_thousand_damaged_files_are_refused_or_read_whole(seed: int) -> None:
    with little_memory():
        survive_mutants(1000, seed)


def test_a_missing_file_a_folder_and_a_huge_file_are_told(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"there is no weights file .*nowhere\.pt"):
        read_weights(tmp_path / "nowhere.pt")
    with pytest.raises(WeightsError, match="there is no weights file"):
        read_weights(tmp_path)
    huge = tmp_path / "huge.pt"
    with huge.open("wb") as file:
        file.truncate(2 << 30)
    with pytest.raises(WeightsError, match=r"huge\.pt is larger than 512 MiB"):
        read_weights(huge)


def test_the_file_that_is_read_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    path.write_bytes(saved(TENSORS))
    path.chmod(0o400)
    before = path.read_bytes(), path.stat().st_mtime_ns
    read_weights(path).tensors["intro.bias"].zero_()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_strict_loading_names_two_of_each_fault() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    tensors = {name: tensor for name, tensor in network.state_dict().items() if not name.startswith("1.")}
    tensors |= {"0.bias": torch.zeros(5), "extra": torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        load_strict(network, tensors, described_as="a.pt (width 4)")
    assert str(caught.value) == (
        "a.pt (width 4) does not fit: it lacks '1.weight', '1.bias' and 3 more, it has the unknown 'extra', "
        "it has another shape at '0.bias' (5 where 4 is expected)"
    )


def test_strict_loading_shows_no_name_of_a_file_as_it_is() -> None:
    tensors = {"\x1b]0;pwned\x07": torch.zeros(1), "y" * 300_000: torch.zeros(1)}
    with pytest.raises(WeightsError) as caught:
        load_strict(nn.Conv2d(3, 4, 3), tensors, described_as="a.pt")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_strict_loading_copies_every_number_and_converts_the_dtype() -> None:
    source, network = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
    load_strict(network, {name: tensor.double() for name, tensor in source.state_dict().items()}, described_as="it")
    assert torch.equal(network.weight, source.weight)
    assert network.weight.dtype == torch.float32


SETTINGS = ("img_channel", "width", "middle_blk_num_enc", "enc_blk_nums", "dec_blk_nums", "dilations", "use_csf",
            "csf_reduction", "encoder_dilations", "extra_channels", "direction_floor", "extra_depth_wise")  # fmt: skip
NUMBERS = st.sampled_from([-3, 0, 1, 2, 64, 30_000, 10**8, 10**400, 0.5, True, None, "wide", math.nan, math.inf])


@cache
def small_darkir() -> dict[str, Tensor]:
    return dict(DarkIR(width=2, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]).state_dict())


@settings(max_examples=150)
@given(st.dictionaries(st.sampled_from(SETTINGS), NUMBERS | st.lists(NUMBERS, max_size=3), min_size=1, max_size=2))
@example({"width": 30_000})
@example({"width": -3})
@example({"use_csf": True, "csf_reduction": 0})
@example({"middle_blk_num_enc": 10**8})
@example({"enc_blk_nums": [10**8, 1]})
@example({"dilations": [1] * 100})
@example({"dilations": [0, 4, 9]})
@example({"encoder_dilations": 1.5})
@example({"dilations": [True]})
@example({"direction_floor": [0]})
@example({"dilations": 4})
@example({"dilations": []})
def test_settings_that_make_no_network_are_refused_in_one_sentence(stated: dict[str, object]) -> None:
    weights, told = WeightsFile(small_darkir(), {"network": json.dumps(stated)}, ""), ""
    with little_memory():
        try:
            backend = load_backend("darkir", weights, **ON_CPU)
        except WeightsError as error:
            told = str(error)
    assert "\n" not in told
    assert len(told) < 1000
    if not told:
        with torch.inference_mode():
            assert backend.enhance(torch.zeros(1, 3, 8, 8)).shape == (1, 3, 8, 8)


@pytest.mark.parametrize(
    "name",
    ["encoders.999999999.modules_list.0.x", "encoders.5000.modules_list.0.x", "middle_blks_enc.modules_list.99999999.x",
     "decoders.0.modules_list.0.branches.99999999.x", "1" + ".1" * 500_000 + ".x"],
)  # fmt: skip
def test_a_tensor_with_a_giants_name_is_refused_at_once(name: str) -> None:
    with little_memory(), pytest.raises(WeightsError):
        load_backend("darkir", WeightsFile({**small_darkir(), name: torch.zeros(1)}, {}, ""), **ON_CPU)


@pytest.mark.parametrize("channels", [{"img_channel": 4}, {"img_channel": 3, "extra_channels": 2}])
def test_a_network_for_no_picture_is_refused(channels: dict[str, int]) -> None:
    network = DarkIR(width=2, enc_blk_nums=[1], dec_blk_nums=[1], **channels)
    with pytest.raises(WeightsError, match="channels"):
        load_backend("darkir", WeightsFile(dict(network.state_dict()), {}, ""), **ON_CPU)


def test_loading_a_network_draws_no_random_numbers() -> None:
    own = ZeroIG(denoise_1=4, enhance=4, denoise_2=4).state_dict()
    for name, tensors in (("darkir", small_darkir()), ("zeroig", dict(own))):
        torch.manual_seed(0)
        load_backend(name, WeightsFile(tensors, {}, ""), **ON_CPU)
        assert torch.initial_seed() == 0
        assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(0)))


def test_numbers_that_only_cost_time_become_nothing():
    network = nn.Conv2d(1, 1, 1)
    load_strict(network, {"weight": torch.full((1, 1, 1, 1), 1e-40), "bias": torch.tensor([-1e-20])}, described_as="it")
    assert network.weight.item() == 0.0
    assert network.bias.item() == pytest.approx(-1e-20)
