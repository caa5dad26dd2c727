"""`lowlight weights` as people and scripts run it."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import faultserver as fault
import pytest
import torch
from faultserver import FaultServer, fault_server
from typer.testing import CliRunner, Result

from lowlight_cli import cache
from lowlight_cli.backends.darkir.network import DarkIR
from lowlight_cli.cli import app as whole_app
from lowlight_cli.cli.weights import app
from lowlight_cli.errors import SettingsError, WeightsError
from lowlight_cli.manifest import LOOPBACK_VARIABLE, MANIFEST_VARIABLE, read_manifest
from lowlight_cli.weights_file import write_weights

BODY = bytes(range(256)) * 100

TABLE = """
schema = 1
[citations]
paper = "@article{{paper}}"
[weights.first]
backend = "darkir"
file = "first.pt"
urls = ["{server}/first.pt"]
bytes = {size}
sha256 = "{digest}"
licence = "CC BY 4.0"
source = "https://example.org/first"
credit = "somebody"
trained_on = "some pictures"
citation = "paper"
[weights.second]
backend = "zeroig"
file = "second.pt"
urls = ["{server}/second.pt"]
bytes = {size}
sha256 = "{digest}"
licence = "none stated"
source = "https://example.org/second"
credit = "somebody else"
trained_on = "other pictures"
citation = "paper"
[weights.byhand]
backend = "darkir"
file = "byhand.pt"
import_only = true
licence = "none stated"
source = "https://example.org/byhand"
credit = "somebody"
trained_on = "some pictures"
citation = "paper"
"""


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of our own whose two files the server has, and an empty cache."""
    for path in ("/first.pt", "/second.pt"):
        server.play(path, fault.whole(BODY))
    digest = hashlib.sha256(BODY).hexdigest()
    table = tmp_path / "table.toml"
    table.write_text(TABLE.format(server=f"http://127.0.0.1:{server.port}", size=len(BODY), digest=digest))
    monkeypatch.setenv(MANIFEST_VARIABLE, str(table))
    monkeypatch.setenv(LOOPBACK_VARIABLE, "1")
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "cache"


def run(*arguments: str) -> Result:
    """Run the command; expected failures come out as `result.exception`, which the one boundary turns into text."""
    return CliRunner().invoke(app, arguments)


def test_failures_are_one_sentence_with_their_exit_code_and_no_traceback(server: FaultServer, folder: Path) -> None:
    server.play("/first.pt", fault.status("404 Not Found"))
    for arguments, code, said in (
        (["download", "first"], 3, f"lowlight: cannot download first to {folder / 'first.pt'}: http://127.0.0.1:"),
        (["download", "byhand"], 3, "lowlight: byhand cannot be downloaded"),
        (["path", "second"], 3, "lowlight: second is not at"),
        (["verify", "second"], 3, "lowlight: damaged or absent: second"),
        (["download", "third"], 2, "lowlight: there are no weights called 'third'"),
        (["download"], 2, "lowlight: name the weights to download"),
        (["import", "nowhere.pt"], 2, "lowlight: there is no file nowhere.pt"),
    ):
        result = CliRunner().invoke(whole_app, ["weights", *arguments])
        assert result.exit_code == code, arguments
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_the_list_shows_every_name_with_licence_and_state(folder: Path) -> None:
    run("download", "first")
    lines = run("list").stdout.splitlines()
    assert lines[0].split() == ["NAME", "BACKEND", "SIZE", "STATE", "LICENCE"]
    assert [line.split()[0] for line in lines[1:]] == ["first", "second", "byhand"]
    assert "cached" in lines[1]
    assert lines[1].endswith("CC BY 4.0")
    assert "import only" in lines[3]
    (folder / "first.pt").write_bytes(b"short")
    assert "damaged" in run("list").stdout.splitlines()[1]


def test_the_long_list_adds_source_credit_and_bibtex() -> None:
    text = run("list", "-v").stdout
    for piece in (
        "https://example.org/second",
        "somebody else",
        "other pictures",
        "@article{paper}",
        "not published",
    ):
        assert piece in text


def test_the_list_as_json_is_one_object_with_a_schema(folder: Path) -> None:
    listed = json.loads(run("list", "--json").stdout)
    assert listed["schema"] == 1
    first = listed["weights"][0]
    assert (first["name"], first["state"], first["bytes"]) == ("first", "absent", len(BODY))
    assert first["path"] == str(folder / "first.pt")


def test_download_path_verify_and_remove_go_together(folder: Path) -> None:
    assert run("download", "--all").exit_code == 0
    assert run("path", "first").stdout == f"{folder / 'first.pt'}\n"
    assert run("verify").stdout == "first: ok\nsecond: ok\n"
    (folder / "second.pt").write_bytes(BODY[:-1] + b"x")
    result = run("verify")
    assert result.stdout == "first: ok\nsecond: damaged\n"
    assert isinstance(result.exception, WeightsError)
    assert run("download", "second").exit_code == 0
    assert run("verify", "first", "second").exit_code == 0
    assert run("remove", "first", "second").exit_code == 0
    assert list(folder.iterdir()) == []
    assert isinstance(run("path", "first").exception, WeightsError)
    assert isinstance(run("verify", "first").exception, WeightsError)


def test_stdout_carries_data_only() -> None:
    assert run("download", "first").stdout == ""
    assert "CC BY 4.0" in run("download", "first").stderr  # the licence is shown where the file is fetched


def test_one_failed_download_does_not_keep_the_next_from_coming(server: FaultServer, folder: Path) -> None:
    server.play("/first.pt", fault.status("404 Not Found"))
    result = run("download", "first", "second")
    assert isinstance(result.exception, WeightsError)
    assert "answered 404 Not Found" in str(result.exception)
    assert "second" not in str(result.exception)
    assert (folder / "second.pt").read_bytes() == BODY


def test_wrong_use_is_told_before_any_work(server: FaultServer, folder: Path) -> None:
    for arguments in (
        ["download"],
        ["download", "first", "--all"],
        ["download", "first", "third"],
        ["remove", "third"],
        ["path", "third"],
        ["verify", "third"],
        ["import", "nowhere.pt"],
    ):
        assert isinstance(run(*arguments).exception, SettingsError), arguments
    assert not folder.exists()


def test_offline_asks_nothing(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(server.seen)
    assert "because offline" in str(run("download", "first", "--offline").exception)
    monkeypatch.setenv("LOWLIGHT_OFFLINE", "1")
    assert "because offline" in str(run("download", "first").exception)
    assert len(server.seen) == before


def test_damage_is_what_is_told_first(folder: Path, tmp_path: Path) -> None:
    assert run("download", "first").exit_code == 0
    (folder / "first.pt").write_bytes(BODY[:-1] + b"x")
    told = str(run("download", "first", "--offline").exception)
    assert told.startswith("the cached file of first is damaged")
    assert "because offline" in told
    (folder / "byhand.pt").write_bytes(b"nobody's")
    assert str(run("download", "byhand").exception).startswith("the cached file of byhand is damaged")
    told = str(run("verify").exception)
    assert "`lowlight weights download first`" in told
    assert "`lowlight weights import FILE --as byhand`" in told


def test_a_folder_that_takes_no_import_is_told_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    folder.write_bytes(b"in the way")
    (tmp_path / "second.pt").write_bytes(BODY)
    told = str(run("import", str(tmp_path / "second.pt")).exception)
    assert cache.FOLDER_VARIABLE in told
    assert "Errno" not in told


def test_a_file_from_elsewhere_is_recognised_by_its_digest(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "whatever the browser called it.bin"
    source.write_bytes(BODY)
    assert run("import", str(source)).exit_code == 0
    assert (folder / "first.pt").read_bytes() == BODY
    assert run("import", str(source), "--as", "second").exit_code == 0
    source.write_bytes(BODY[1:])
    assert "where 25600 bytes with" in str(run("import", str(source), "--as", "first").exception)
    assert (folder / "first.pt").read_bytes() == BODY


def test_a_file_of_another_network_is_not_taken_for_one_that_nobody_knows_by_digest(
    tmp_path: Path, folder: Path
) -> None:
    table = tmp_path / "table.toml"
    table.write_text(table.read_text() + "network = { width = 8, dilations = [1] }\n")
    for width, code in ((4, 3), (8, 0)):
        torch.save(DarkIR(width=width, dilations=(1,)).state_dict(), tmp_path / "mine.pt")
        result = CliRunner().invoke(whole_app, ["weights", "import", str(tmp_path / "mine.pt"), "--as", "byhand"])
        assert result.exit_code == code, result.output
        assert (folder / "byhand.pt").exists() == (code == 0)
        assert "DarkIR of width 8" in result.stderr or code == 0


def test_a_digest_counts_before_a_name(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "byhand.pt"
    source.write_bytes(BODY)
    known = read_manifest()
    assert cache.match({name: known[name] for name in ("byhand", "second")}, source).name == "second"
    source.write_bytes(BODY[1:])
    assert cache.match(known, source).name == "byhand"


def test_a_file_without_a_published_digest_must_be_weights_of_its_backend(tmp_path: Path, folder: Path) -> None:
    source = tmp_path / "byhand.pt"
    source.write_bytes(b"no weights at all")
    assert "neither a safetensors file nor" in str(run("import", str(source)).exception)
    torch.save({"params": {"conv.weight": torch.zeros(2)}}, source)
    assert "byhand.pt as byhand: it is not for darkir: it lacks ending.weight, intro.weight" in str(
        run("import", str(source)).exception
    )
    assert not (folder / "byhand.pt").exists()
    write_weights(source, {"intro.weight": torch.zeros(2), "ending.weight": torch.zeros(2)}, {})
    assert "these are no DarkIR weights" in str(run("import", str(source)).exception)
    torch.save({"params": DarkIR(width=4, dilations=(1,)).state_dict()}, source)
    assert run("import", str(source)).exit_code == 0
    assert run("verify", "byhand").stdout == "byhand: ok\n"
    assert run("path", "byhand").exit_code == 0
    assert "get byhand.pt from its authors" in str(run("download", "byhand").exception) or folder.exists()
    assert run("remove", "byhand").exit_code == 0
    assert "get byhand.pt from its authors" in str(run("download", "byhand").exception)


def test_listing_loads_neither_torch_nor_the_network_libraries() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from lowlight_cli.cli import app;"
        "[CliRunner().invoke(app, ['weights', *line.split()], catch_exceptions=False) for line in sys.argv[1:]];"
        "print(*{'torch', 'requests', 'safetensors', 'numpy', 'filelock'} & set(sys.modules))"
    )
    for commands in (
        ["list", "list -v", "list --json", "verify", "remove second", "download --help"],
        ["--help"],
    ):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        result = subprocess.run(
            [sys.executable, "-c", code, *commands],
            capture_output=True,
            text=True,
            env=environment,
            check=True,
        )
        assert result.stdout.split() == []
