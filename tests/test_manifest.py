"""The table of weights: what we ship is right, and what is not exactly right is refused readably."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lowlight_cli import cache
from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.manifest import (
    LOOPBACK_VARIABLE,
    MANIFEST_VARIABLE,
    find_entry,
    manifest_path,
    parse_manifest,
    read_manifest,
    url_fault,
)
from lowlight_cli.settings import DEFAULT_MODEL

PLACEHOLDER = "0" * 64

GOOD = """
schema = 1
[citations]
paper = "@article{{paper}}"
[weights.small]
backend = "darkir"
file = "small.safetensors"
urls = ["https://example.org/small.safetensors"]
bytes = 10
sha256 = "{digest}"
licence = "MIT"
source = "https://example.org"
credit = "nobody"
trained_on = "nothing"
citation = "paper"
network = {{ width = 16, dilations = [1, 2], extra_depth_wise = false }}
""".format(digest="ab" * 32)


def test_the_shipped_table_names_the_default_and_every_published_file() -> None:
    manifest = read_manifest()
    assert manifest[DEFAULT_MODEL].embedded
    assert {entry.backend for entry in manifest.values()} == {"darkir", "zeroig"}
    assert sum(bool(entry.urls) for entry in manifest.values()) == 5
    for entry in manifest.values():
        assert entry.licence
        assert entry.citation.startswith("@InProceedings{")
        assert entry.citation.count("{") == entry.citation.count("}")
        assert all(url.startswith("https://") for url in entry.urls)


def test_the_embedded_weights_are_the_ones_that_the_table_describes() -> None:
    entry = read_manifest()[DEFAULT_MODEL]
    path = cache.locate(entry)
    if entry.sha256 == PLACEHOLDER and not path.exists():
        pytest.skip("the embedded weights have not been trained yet")
    content = path.read_bytes()
    assert (len(content), hashlib.sha256(content).hexdigest()) == (entry.bytes, entry.sha256)


def test_a_good_table_is_read_whole() -> None:
    entry = parse_manifest(GOOD)["small"]
    assert entry.bytes == 10
    assert entry.citation == "@article{paper}"
    assert entry.network == {"width": 16, "dilations": (1, 2), "extra_depth_wise": False}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("schema = 1", "schema = 2", "schema is 2 where this version reads 1"),
        ("schema = 1", "", "schema is None"),
        ("schema = 1", "schema = 1\nextra = 1", "the top level has the unknown key 'extra'"),
        ("[weights.small]", "[weights.small", "it is not TOML"),
        ("[weights.small]", '[weights."../small"]', "a name is made of"),
        ("[weights.small]", "[weights.Small]", "a name is made of"),
        ('backend = "darkir"', 'backend = "other"', "backend 'other' is none of darkir, zeroig"),
        ('backend = "darkir"', "", "weights.small has no backend"),
        ('backend = "darkir"', "backend = 3", "weights.small.backend is 3, which is not of type str"),
        ('file = "small', 'file = "../small', "weights.small.file is '../small"),
        ('file = "small', 'file = ".small', "weights.small.file"),
        ('file = "small.safetensors"', 'file = "small.sh"', "weights.small.file"),
        ("https://example.org/small", "http://example.org/small", "is not https"),
        ("https://example.org/small", "http://127.0.0.1/small", "is not https"),
        ("https://example.org/small", "https:///small", "must name a host"),
        ("https://example.org/small", "https://me:word@example.org/small", "no user or password"),
        ("https://example.org/small", "https://[::1/small", "is not an address"),
        ("https://example.org/small", "https://example.org:x/small", "is not an address"),
        ("https://example.org/small", "https://example.org/a small", "is not an address"),
        ('urls = ["', 'urls = [1, "', "1 is not text"),
        ("bytes = 10", "bytes = true", "weights.small.bytes is True"),
        ("bytes = 10", "bytes = 0", "bytes must be positive"),
        ("bytes = 10", "", "bytes and sha256 go together"),
        ('sha256 = "ab', 'sha256 = "', "weights.small.sha256"),
        ('sha256 = "ab', 'sha256 = "AB', "weights.small.sha256"),
        ("bytes = 10", "bytes = 10\nembedded = true", "exactly one of embedded, import_only and urls"),
        ('licence = "MIT"', 'license = "MIT"', "weights.small has the unknown key 'license'"),
        ('citation = "paper"', 'citation = "another"', "citations has no another"),
        ("width = 16", "width = 1.5", "weights.small.network.width is neither"),
        ("[1, 2]", "[1, true]", "weights.small.network.dilations is neither"),
        ("[weights.small]", "[weights]\nsmall = 1\n[other]", "unknown key 'other'"),
    ],
)
def test_what_is_not_exactly_right_is_refused_readably(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    with pytest.raises(WeightsError) as caught:
        parse_manifest(GOOD.replace(old, new, 1))
    assert expected in str(caught.value)


def test_two_entries_may_not_share_a_file_whatever_its_case() -> None:
    second = GOOD[GOOD.index("[weights.small]") :].replace("weights.small", "weights.other")
    with pytest.raises(WeightsError, match=r"weights\.other and weights\.small share the file name"):
        parse_manifest(GOOD + second.replace('file = "small', 'file = "SMALL'))


def test_files_without_a_digest_can_only_be_imported() -> None:
    text = GOOD.replace("bytes = 10", "").replace(f'sha256 = "{"ab" * 32}"', "")
    with pytest.raises(WeightsError, match="bytes and sha256 are missing"):
        parse_manifest(text)
    imported = text.replace('urls = ["https://example.org/small.safetensors"]', "import_only = true")
    assert parse_manifest(imported)["small"].sha256 is None


@given(st.text(max_size=200))
def test_any_text_is_a_table_or_a_readable_refusal(text: str) -> None:
    with pytest.raises(WeightsError):
        parse_manifest(text)


@pytest.mark.parametrize("address", ["http://127.0.0.1:80/x", "http://[::1]/x", "http://127.9.9.9/x"])
def test_plain_http_is_for_the_loopback_and_only_by_the_switch(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert url_fault(address) == "is not https"
    monkeypatch.setenv(LOOPBACK_VARIABLE, "1")
    assert url_fault(address) is None
    for elsewhere in ("http://example.org/x", "http://localhost/x", "http://10.0.0.1/x", "ftp://127.0.0.1/x"):
        assert url_fault(elsewhere) == "is not https"


def test_a_table_of_ones_own_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.toml"
    path.write_text(GOOD)
    monkeypatch.setenv(MANIFEST_VARIABLE, str(path))
    assert list(read_manifest()) == ["small"]
    path.write_text(GOOD + "surprise = 1")
    with pytest.raises(WeightsError, match=r"the weights manifest .*own\.toml is wrong: .*'surprise'"):
        read_manifest()
    path.unlink()
    with pytest.raises(WeightsError, match=r"cannot read the weights manifest .*own\.toml"):
        read_manifest()


def test_the_shipped_table_lies_in_the_package_or_beside_it() -> None:
    assert manifest_path().name == "weights_manifest.toml"
    assert manifest_path().is_file()


def test_an_unknown_name_is_wrong_use_and_hints_at_the_nearest() -> None:
    with pytest.raises(SettingsError, match=r"there are no weights called 'darkir-smal': did you mean darkir-small"):
        find_entry(read_manifest(), "darkir-smal")
    with pytest.raises(SettingsError, match=r"there are darkir-small, darkir-lolblur"):
        find_entry(read_manifest(), "???")
