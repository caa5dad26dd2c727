"""The cache against a server that plays faults: no wrong bytes under a final name, a clear sentence each."""

import gzip
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import faultserver as fault
import pytest
from faultserver import Answer, FaultServer, fault_server
from ordinaryuser import as_an_ordinary_user

from lowlight_cli import cache
from lowlight_cli.download import Patience
from lowlight_cli.errors import OutputError, SettingsError, WeightsError
from lowlight_cli.manifest import LOOPBACK_VARIABLE, WeightsEntry

BODY = random.Random(5).randbytes(200_000)
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:61ee\nsize 200000\n"


def no_sleep(seconds: float) -> None:
    """Stand in for time.sleep where a test does not look at the pauses."""


QUICK = Patience(
    connect=30.0,
    read=30.0,
    floor=50_000.0,
    window=30.0,
    attempts=3,
    backoff=0.001,
    longest_pause=0.01,
    sleep=no_sleep,
)


# For servers that fall silent or drip. A machine that is busy may seem to do so, and is no fault.
HASTY = replace(QUICK, read=0.25, window=0.2)


def patience_for(case: str) -> Patience:
    return HASTY if any(word in case for word in ("stall", "drip", "silence")) else QUICK


@pytest.fixture(scope="module")
def server() -> Iterator[FaultServer]:
    with fault_server() as running:
        yield running


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(LOOPBACK_VARIABLE, "1")
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry_at(*urls: str, body: bytes = BODY, **changes: object) -> WeightsEntry:
    entry = WeightsEntry(
        name="made-up",
        backend="darkir",
        file="made-up.pt",
        licence="none",
        source="https://example.org/made-up",
        credit="nobody",
        trained_on="nothing",
        citation="",
        urls=urls,
        bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    return replace(entry, **changes)  # type: ignore[arg-type]


def leftovers(folder: Path) -> set[str]:
    """What lies in the cache besides the lock, which may stay."""
    return {path.name for path in folder.iterdir()} - {".made-up.pt.lock"} if folder.exists() else set()


def flipped(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


# Each case: the answers of one mirror in turn. All of them end with the right bytes.
CURED: dict[str, tuple[Answer, ...]] = {
    "whole body": (fault.whole(BODY),),
    "chunked body without a length": (fault.chunked([BODY[:70_000], BODY[70_000:]]),),
    "body that ends with the connection": (fault.plain("200 OK", BODY),),
    "cut body, resumed": (fault.cut(BODY, 90_000), fault.whole(BODY)),
    "cut twice, resumed twice": (fault.cut(BODY, 90_000), fault.cut(BODY, 50_000), fault.whole(BODY)),
    "cut with a strong tag": (fault.cut(BODY, 90_000, ETag='"a"'), fault.whole(BODY, ETag='"a"')),
    "cut, then a server that knows no ranges": (fault.cut(BODY, 90_000), fault.whole_only(BODY)),
    "cut, then 416": (fault.cut(BODY, 90_000), fault.status("416 No"), fault.whole_only(BODY)),
    "cut, then another range": (
        fault.cut(BODY, 90_000),
        fault.plain("206 Partial Content", BODY[5:], Content_Range="bytes 5-199999/200000"),
        fault.whole_only(BODY),
    ),
    "cut, then a range beyond all numbers": (
        fault.cut(BODY, 90_000),
        fault.plain("206 Partial Content", BODY[5:], Content_Range=f"bytes {'9' * 5000}-1/2"),
        fault.whole_only(BODY),
    ),
    "cut, then a range of another file": (
        fault.cut(BODY, 90_000),
        fault.plain("206 Partial Content", BODY[90_000:], Content_Range="bytes 90000-199998/199999"),
        fault.whole_only(BODY),
    ),
    "cut chunked body": (fault.chunked([BODY[:1000]], end=False), fault.whole(BODY)),
    "cut before the first byte": (fault.cut(BODY, 0), fault.whole(BODY)),
    "connection torn down": (fault.reset, fault.whole(BODY)),
    "connection closed without a word": (fault.raw(b""), fault.whole(BODY)),
    "500, then fine": (fault.status("500 Oops"), fault.whole(BODY)),
    "502 and 503, then fine": (fault.status("502 Bad"), fault.status("503 Busy"), fault.whole(BODY)),
    "408, then fine": (fault.status("408 Late"), fault.whole(BODY)),
    "425, then fine": (fault.status("425 Early"), fault.whole(BODY)),
    "429 without Retry-After": (fault.status("429 Slow down"), fault.whole(BODY)),
    "429 with nonsense in Retry-After": (fault.status("429 Slow", Retry_After="soon"), fault.whole(BODY)),
    "429 that asks for an eternity": (fault.status("429 Slow", Retry_After="9" * 5000), fault.whole(BODY)),
    "503 with a date in Retry-After": (
        fault.status("503 Busy", Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"),
        fault.whole(BODY),
    ),
    "stall in the middle": (fault.stall(BODY, 120_000, seconds=3), fault.whole(BODY)),
    "stall after the last byte": (
        fault.stall(BODY, len(BODY), seconds=3),
        fault.status("416 Range Not Satisfiable"),
    ),
    "slow drip, then fine": (fault.drip(BODY, seconds=0.05, step=10), fault.whole(BODY)),
    "relative redirect": (fault.redirect("/elsewhere"),),
}

# Each case: the answers of the only mirror, and what the message must say.
REFUSED: dict[str, tuple[tuple[Answer, ...], str]] = {
    "wrong byte at the end": ((fault.whole(flipped(BODY)),), "sent other bytes"),
    "resumed into another file": ((fault.cut(BODY, 90_000), fault.whole(flipped(BODY))), "sent other bytes"),
    "one byte short": ((fault.whole(BODY[:-1]),), "offers 199999 bytes where 200000 are right"),
    "one byte long": ((fault.whole(BODY + b"x"),), "offers 200001 bytes where 200000 are right"),
    "one byte long, chunked": ((fault.chunked([BODY, b"x"]),), "sent more than 200000 bytes"),
    "endless body without a length": ((fault.plain("200 OK", BODY * 3),), "sent more than 200000 bytes"),
    "short body without a length": (
        (fault.plain("200 OK", BODY[:-9]),),
        "ended too early, 199991 of 200000 bytes arrived (3 attempts)",
    ),
    "a length beyond all numbers": ((fault.plain("200 OK", BODY, Content_Length="9" * 5000),), "offers 9999999999"),
    "empty body": ((fault.whole(b""),), "offers 0 bytes"),
    "404": ((fault.status("404 Not Found"),), "answered 404 Not Found"),
    "410": ((fault.status("410 Gone"),), "answered 410 Gone"),
    "401": ((fault.status("401 Unauthorized"),), "answered 401 Unauthorized"),
    "403": ((fault.status("403 Forbidden"),), "answered 403 Forbidden"),
    "204": ((fault.status("204 No Content"),), "answered 204 No Content"),
    "a status of its own": ((fault.status("499 Strange"),), "answered 499"),
    "500 for ever": ((fault.status("500 Oops"),), "answered 500 Internal Server Error (3 attempts)"),
    "429 for ever": ((fault.status("429 Slow", Retry_After="9999"),), "answered 429 Too Many Requests"),
    "cut for ever": ((fault.cut(BODY, 10),), "broke the connection, 30 of 200000 bytes arrived (3 attempts)"),
    "silence": ((fault.silence(seconds=2),), "sent nothing for 0.25 s"),
    "drip for ever": ((fault.drip(BODY, seconds=0.05, step=10),), "less than 50000 bytes per second"),
    "web page with status 200": ((fault.whole(PAGE),), "a web page, perhaps a login"),
    "web page in chunks": ((fault.chunked([PAGE]),), "a web page, perhaps a login"),
    "Git LFS pointer": ((fault.whole(POINTER),), "a Git LFS pointer"),
    "gzip encoding": (
        (fault.plain("200 OK", gzip.compress(BODY), Content_Encoding="gzip"),),
        "in 'gzip' encoding although it was asked not to",
    ),
    "redirect to plain http elsewhere": ((fault.redirect("http://example.org/x"),), "that is not https"),
    "redirect to a file": ((fault.redirect("file:///etc/passwd"),), "that is not https"),
    "redirect to nonsense": ((fault.redirect("https://[::1"),), "leads to an address that is none"),
    "redirect with a password": ((fault.redirect("https://me:word@example.org/"),), "no user or password"),
    "not HTTP": ((fault.raw(b"SSH-2.0-OpenSSH_9.6\r\n"),), "broke the connection"),
}


@pytest.mark.parametrize("case", CURED)
def test_a_fault_that_passes_ends_with_the_right_bytes(case: str, server: FaultServer, folder: Path) -> None:
    server.play("/elsewhere", fault.whole(BODY))
    path = cache.fetch(entry_at(server.play("/made-up.pt", *CURED[case])), patience=patience_for(case))
    assert path.read_bytes() == BODY
    assert leftovers(folder) == {"made-up.pt"}


@pytest.mark.parametrize("case", REFUSED)
def test_a_fault_that_stays_is_told_in_one_sentence(case: str, server: FaultServer, folder: Path) -> None:
    answers, expected = REFUSED[case]
    url = server.play("/made-up.pt", *answers)
    with pytest.raises(WeightsError) as caught:
        cache.fetch(entry_at(url), patience=patience_for(case))
    message = str(caught.value)
    assert expected in message
    assert url in message
    assert str(folder / "made-up.pt") in message
    assert "`lowlight weights import FILE --as made-up`" in message
    assert "\n" not in message
    assert caught.value.exit_code == 3
    assert leftovers(folder) == set()


@pytest.mark.parametrize("case", [case for case in REFUSED if case not in ("silence", "drip for ever")])
def test_the_next_mirror_helps_out(case: str, server: FaultServer, folder: Path) -> None:
    bad = server.play("/bad.pt", *REFUSED[case][0])
    good = server.play("/good.pt", fault.whole(BODY))
    path = cache.fetch(entry_at(bad, good), patience=replace(QUICK, attempts=2))
    assert path.read_bytes() == BODY
    assert leftovers(folder) == {"made-up.pt"}


def test_only_the_missing_part_is_asked_for_again(server: FaultServer) -> None:
    url = server.play("/part.pt", fault.cut(BODY, 90_000, ETag='"v1"'), fault.whole(BODY))
    cache.fetch(entry_at(url), patience=QUICK)
    first, second = server.asked("/part.pt")
    assert "range" not in first.headers
    assert second.headers["range"] == "bytes=90000-"
    assert second.headers["if-range"] == '"v1"'
    assert first.headers["accept-encoding"] == "identity"


def test_a_weak_tag_vouches_for_no_range(server: FaultServer) -> None:
    url = server.play("/weak.pt", fault.cut(BODY, 90_000, ETag='W/"v1"'), fault.whole(BODY))
    cache.fetch(entry_at(url), patience=QUICK)
    assert "if-range" not in server.asked("/weak.pt")[1].headers


def test_no_password_of_this_machine_goes_out(
    server: FaultServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("default login alice password hunter2\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    there = server.play("/there.pt", fault.whole(BODY))
    cache.fetch(entry_at(server.play("/moved.pt", fault.redirect(there))), patience=QUICK)
    for path in ("/moved.pt", "/there.pt"):
        assert all("authorization" not in exchange.headers for exchange in server.asked(path))


def test_pauses_grow_and_obey_retry_after_up_to_a_limit(server: FaultServer) -> None:
    pauses: list[float] = []
    url = server.play(
        "/pauses.pt",
        fault.status("500 Oops"),
        fault.status("500 Oops"),
        fault.status("429 Slow", Retry_After="7"),
        fault.status("503 Busy", Retry_After="9999"),
        fault.whole(BODY),
    )
    notices: list[str] = []
    patience = replace(QUICK, attempts=5, backoff=1, longest_pause=60, sleep=pauses.append)
    cache.fetch(entry_at(url), patience=patience, notice=notices.append)
    assert pauses == [1, 2, 7, 60]
    assert notices[2] == f"{url} answered 429 Too Many Requests; trying again in 7 s"


@pytest.mark.parametrize("line", ["400 Bad", "401 No", "403 No", "404 No", "410 Gone", "451 Legal"])
def test_a_refusal_is_not_asked_again(line: str, server: FaultServer) -> None:
    path = f"/refusal-{line[:3]}"
    with pytest.raises(WeightsError):
        cache.fetch(entry_at(server.play(path, fault.status(line))), patience=QUICK)
    assert len(server.asked(path)) == 1


def test_a_redirect_loop_ends(server: FaultServer, folder: Path) -> None:
    url = server.play("/loop", fault.redirect("/loop"))
    with pytest.raises(WeightsError, match="redirects more than 5 times"):
        cache.fetch(entry_at(url), patience=QUICK)
    assert len(server.asked("/loop")) == 6
    assert leftovers(folder) == set()


def test_a_file_that_is_there_is_not_asked_for(server: FaultServer, folder: Path) -> None:
    folder.mkdir()
    (folder / "made-up.pt").write_bytes(BODY)
    url = server.play("/unasked.pt", fault.whole(BODY))
    assert cache.fetch(entry_at(url)) == folder / "made-up.pt"
    assert server.asked("/unasked.pt") == []


@pytest.mark.parametrize("damage", [b"", BODY[:-1], BODY + b"x", flipped(BODY)])
def test_a_damaged_file_is_replaced(damage: bytes, server: FaultServer, folder: Path) -> None:
    folder.mkdir()
    (folder / "made-up.pt").write_bytes(damage)
    entry = entry_at(server.play("/again.pt", fault.whole(BODY)))
    assert cache.verify(entry) == "stale"
    assert cache.fetch(entry, patience=QUICK).read_bytes() == BODY
    assert cache.verify(entry) == "present"


def test_a_failed_download_leaves_the_old_file(server: FaultServer, folder: Path) -> None:
    folder.mkdir()
    (folder / "made-up.pt").write_bytes(b"older weights")
    with pytest.raises(WeightsError):
        cache.fetch(entry_at(server.play("/none.pt", fault.status("404 No"))), patience=QUICK)
    assert (folder / "made-up.pt").read_bytes() == b"older weights"


def test_progress_counts_to_the_end(server: FaultServer) -> None:
    told: list[tuple[int, int]] = []
    url = server.play("/progress.pt", fault.whole(BODY))
    cache.fetch(entry_at(url), progress=lambda received, total: told.append((received, total)), patience=QUICK)
    assert told[-1] == (len(BODY), len(BODY))
    assert [received for received, _ in told] == sorted(received for received, _ in told)


def test_plain_http_is_refused_without_the_tests_switch(
    server: FaultServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(LOOPBACK_VARIABLE)
    url = server.play("/plain.pt", fault.whole(BODY))
    with pytest.raises(WeightsError, match="not https"):
        cache.fetch(entry_at(url), patience=QUICK)
    assert server.asked("/plain.pt") == []
    assert leftovers(folder) == set()


def test_a_host_that_does_not_listen_is_told(folder: Path) -> None:
    with pytest.raises(WeightsError, match="could not be reached"):
        cache.fetch(entry_at("http://127.0.0.1:9/x.pt"), patience=QUICK)
    assert leftovers(folder) == set()


def test_a_broken_proxy_is_told_without_its_password(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://me:secret@127.0.0.1:9")
    with pytest.raises(WeightsError, match="through the proxy") as caught:
        cache.fetch(entry_at("https://example.org/x.pt"), patience=QUICK)
    assert "secret" not in str(caught.value)
    assert leftovers(folder) == set()


def test_an_unknown_certificate_is_refused(tmp_path: Path, folder: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    certificate = make_certificate(tmp_path)
    with fault_server(certificate=certificate) as secure:
        url = secure.play("/tls.pt", fault.whole(BODY))
        with pytest.raises(WeightsError, match="certificate that is not trusted"):
            cache.fetch(entry_at(url), patience=QUICK)
        assert secure.seen == []
    assert leftovers(folder) == set()


def test_a_trusted_certificate_serves_and_a_fall_back_to_http_is_refused(
    tmp_path: Path, server: FaultServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("openssl"):
        pytest.skip("openssl is not installed")
    certificate = make_certificate(tmp_path)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    monkeypatch.delenv(LOOPBACK_VARIABLE)
    with fault_server(certificate=certificate) as secure:
        downgraded = secure.play("/down.pt", fault.redirect(server.play("/plain.pt", fault.whole(BODY))))
        with pytest.raises(WeightsError, match="leads to an address that is not https"):
            cache.fetch(entry_at(downgraded), patience=QUICK)
        good = secure.play("/tls.pt", fault.whole(BODY))
        assert cache.fetch(entry_at(good), patience=QUICK).read_bytes() == BODY


def make_certificate(folder: Path) -> Path:
    key, certificate, both = folder / "key.pem", folder / "certificate.pem", folder / "both.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    return both


def test_too_little_space_is_told_before_anything_is_asked(server: FaultServer, folder: Path) -> None:
    url = server.play("/huge.pt", fault.whole(BODY))
    with pytest.raises(WeightsError, match=r"bytes are needed there and \d+ are free"):
        cache.fetch(entry_at(url, bytes=1 << 60), patience=QUICK)
    assert server.asked("/huge.pt") == []
    assert leftovers(folder) == set()


def test_a_disk_that_fills_up_is_told_and_nothing_stays(server: FaultServer, folder: Path) -> None:
    url = server.play("/full.pt", fault.whole(BODY))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(WeightsError, match="cannot write") as caught:
            cache.fetch(entry_at(url), patience=QUICK)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert url in str(caught.value)
    assert "lowlight weights import FILE" in str(caught.value)
    assert leftovers(folder) == set()


def test_a_cache_folder_that_is_a_file_is_told(server: FaultServer, folder: Path) -> None:
    folder.write_bytes(b"in the way")
    url = server.play("/way.pt", fault.whole(BODY))
    with pytest.raises(WeightsError, match=cache.FOLDER_VARIABLE) as caught:
        cache.fetch(entry_at(url), patience=QUICK)
    assert "Errno" not in str(caught.value)
    assert folder.read_bytes() == b"in the way"


def test_a_read_only_cache_folder_is_told(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.play("/read-only.pt", fault.whole(BODY))
    with as_an_ordinary_user(), tempfile.TemporaryDirectory() as name:
        monkeypatch.setenv(cache.FOLDER_VARIABLE, f"{name}/cache")
        Path(name).chmod(0o555)
        try:
            with pytest.raises(WeightsError, match="Permission denied") as caught:
                cache.fetch(entry_at(url), patience=QUICK)
        finally:
            Path(name).chmod(0o755)
    assert f"{name}/cache/made-up.pt" in str(caught.value)
    assert cache.FOLDER_VARIABLE in str(caught.value)
    assert "Errno" not in str(caught.value)
    assert server.asked("/read-only.pt") == []


def test_old_parts_of_killed_downloads_go_and_young_ones_stay(server: FaultServer, folder: Path) -> None:
    folder.mkdir()
    old, young = folder / ".made-up.pt.0a.part", folder / ".made-up.pt.0b.part"
    for part in (old, young):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 9999, time.time() - 9999))
    cache.fetch(entry_at(server.play("/old.pt", fault.whole(BODY))), patience=QUICK)
    assert leftovers(folder) == {"made-up.pt", young.name}


CHILD = """
import json, sys
from lowlight_cli import cache
from lowlight_cli.manifest import WeightsEntry
print(cache.fetch(WeightsEntry(**json.loads(sys.argv[1]))))
"""


def as_json(entry: WeightsEntry) -> str:
    return json.dumps({name: value for name, value in vars(entry).items() if name != "network"})


@contextmanager
def child_of(url: str, *, code: str = CHILD) -> Iterator[subprocess.Popen[str]]:
    """Run `code` in a process of its own, which ends with the block at the latest."""
    with subprocess.Popen(
        [sys.executable, "-c", code, as_json(entry_at(url))],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def share_first_use(processes: int, server: FaultServer, folder: Path) -> None:
    path = f"/shared-{folder.parent.name}-{processes}.pt"
    url = server.play(path, fault.whole(BODY))
    with ExitStack() as stack:
        for child in [stack.enter_context(child_of(url)) for _ in range(processes)]:
            out, err = child.communicate(timeout=60)
            assert child.returncode == 0, err
            assert Path(out.strip()).read_bytes() == BODY
    assert leftovers(folder) == {"made-up.pt"}
    assert len(server.asked(path)) == 1  # the lock spares the others the download


def test_processes_share_the_first_use(server: FaultServer, folder: Path) -> None:
    share_first_use(4, server, folder)


@pytest.mark.slow
@pytest.mark.parametrize("run", range(25))
@pytest.mark.parametrize("processes", [2, 4, 8, 16])
def test_many_processes_share_the_first_use(processes: int, run: int, server: FaultServer, folder: Path) -> None:
    share_first_use(processes, server, folder)


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def kill_half_way(length: int, server: FaultServer, folder: Path) -> None:
    path = f"/killed-{folder.parent.name}-{length}.pt"
    url = server.play(path, fault.stall(BODY, length, seconds=60), fault.whole(BODY))
    with child_of(url) as child:
        wait_for(lambda: server.asked(path))
        wait_for(lambda: length == 0 or any(part.stat().st_size for part in folder.glob(".made-up.pt.*.part")))
        child.kill()
    assert "made-up.pt" not in leftovers(folder)
    with child_of(url) as again:
        out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    assert Path(out.strip()).read_bytes() == BODY


def test_a_download_that_is_interrupted_clears_up_after_itself(server: FaultServer, folder: Path) -> None:
    url = server.play("/interrupted.pt", fault.stall(BODY, 100_000, seconds=60))
    # A shell's background job ignores SIGINT, and so would its children.
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)" + CHILD
    with child_of(url, code=code) as child:
        wait_for(lambda: any(part.stat().st_size for part in folder.glob(".made-up.pt.*.part")))
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert "KeyboardInterrupt" in err
    assert leftovers(folder) == set()


def test_a_download_killed_half_way_is_done_by_the_next_run(server: FaultServer, folder: Path) -> None:
    kill_half_way(100_000, server, folder)


@pytest.mark.slow
@pytest.mark.parametrize("length", [0, *range(20_000, 200_000, 20_000)])
def test_a_download_killed_anywhere_is_done_by_the_next_run(length: int, server: FaultServer, folder: Path) -> None:
    kill_half_way(length, server, folder)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["write", "ftruncate", "fsync", "rename", "flock", "recvfrom"])
@pytest.mark.parametrize("when", [1, 2, 3, 5, 8])
def test_a_kill_at_a_file_call_leaves_no_wrong_file(call: str, when: int, server: FaultServer, folder: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    url = server.play(f"/strace-{call}-{when}.pt", fault.cut(BODY, 90_000), fault.whole(BODY))
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}"]
    command += ["-e", f"inject={call}:signal=KILL:when={when}", sys.executable, "-c", CHILD]
    command += [as_json(entry_at(url))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
    final = folder / "made-up.pt"
    assert not final.exists() or final.read_bytes() == BODY
    assert cache.fetch(entry_at(url), patience=QUICK).read_bytes() == BODY


def test_removing_leaves_nothing(server: FaultServer, folder: Path) -> None:
    entry = entry_at(server.play("/remove.pt", fault.whole(BODY)))
    assert not cache.remove(entry)
    cache.fetch(entry, patience=QUICK)
    (folder / ".made-up.pt.0a.part").write_bytes(b"half")
    assert cache.remove(entry)
    assert list(folder.iterdir()) == []
    assert cache.status(entry) == "absent"


def test_what_is_part_of_the_package_is_neither_removed_nor_imported_nor_downloaded(tmp_path: Path) -> None:
    entry = entry_at(embedded=True, file="there-is-no-such.safetensors")
    source = tmp_path / "source.pt"
    source.write_bytes(BODY)
    with pytest.raises(SettingsError, match="part of the package"):
        cache.remove(entry)
    with pytest.raises(SettingsError, match="part of the package"):
        cache.import_file(entry, source)
    with pytest.raises(WeightsError, match="install lowlight-cli again"):
        cache.fetch(entry)


def test_an_imported_file_is_checked_by_its_digest(tmp_path: Path, folder: Path) -> None:
    entry = entry_at("https://example.org/x.pt")
    source = tmp_path / "source.pt"
    source.write_bytes(flipped(BODY))
    with pytest.raises(WeightsError, match="is not made-up: 200000 bytes with sha256"):
        cache.import_file(entry, source)
    assert leftovers(folder) == set()
    source.write_bytes(BODY)
    assert cache.import_file(entry, source).read_bytes() == BODY
    assert cache.verify(entry) == "present"
    assert source.read_bytes() == BODY


def test_an_import_without_a_published_digest_notes_its_own(tmp_path: Path, folder: Path) -> None:
    entry = entry_at(import_only=True, bytes=None, sha256=None)
    source = tmp_path / "made-up.pt"
    source.write_bytes(BODY)
    with pytest.raises(WeightsError, match=r"get made-up\.pt from its authors \(https://example\.org/made-up\)"):
        cache.fetch(entry)
    assert cache.match({"made-up": entry}, source) == entry
    path = cache.import_file(entry, source)
    assert cache.find(entry) == path
    assert cache.known_digest(entry) == hashlib.sha256(BODY).hexdigest()
    path.write_bytes(flipped(BODY))
    assert cache.verify(entry) == "stale"
    assert cache.find(entry) is None


def test_an_import_that_its_check_refuses_leaves_nothing(tmp_path: Path, folder: Path) -> None:
    def refuse(content: bytes) -> None:
        raise WeightsError("not for this network")

    entry = entry_at(import_only=True, bytes=None, sha256=None)
    source = tmp_path / "made-up.pt"
    source.write_bytes(BODY)
    with pytest.raises(WeightsError, match="not for this network"):
        cache.import_file(entry, source, check=refuse)
    assert leftovers(folder) == set()


def test_a_file_that_no_entry_knows_is_told_its_digest(tmp_path: Path) -> None:
    source = tmp_path / "unknown.pt"
    source.write_bytes(b"something")
    with pytest.raises(WeightsError, match=hashlib.sha256(b"something").hexdigest()):
        cache.match({"made-up": entry_at("https://example.org/x.pt")}, source)
    with pytest.raises(SettingsError, match="there is no file"):
        cache.match({}, tmp_path / "nowhere.pt")


def test_the_cache_folder_is_this_users_unless_the_environment_names_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.FOLDER_VARIABLE, "~/weights")
    assert cache.cache_folder() == Path.home() / "weights"
    monkeypatch.setenv(cache.FOLDER_VARIABLE, "relative")
    assert cache.cache_folder().is_absolute()
    monkeypatch.delenv(cache.FOLDER_VARIABLE)
    assert "lowlight" in str(cache.cache_folder())
    monkeypatch.setenv(cache.FOLDER_VARIABLE, "~nobody-of-this-name/x")
    with pytest.raises(SettingsError, match="no such home folder"):
        cache.cache_folder()


def test_a_folder_in_the_place_of_the_file_is_told(server: FaultServer, folder: Path) -> None:
    (folder / "made-up.pt").mkdir(parents=True)
    entry = entry_at(server.play("/folder.pt", fault.whole(BODY)))
    with pytest.raises(WeightsError, match="not a plain file"):
        cache.fetch(entry, patience=QUICK)
    with pytest.raises(OutputError, match="cannot remove"):
        cache.remove(entry)


OFFLINE = """
import json, sys
sockets = []
sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith("socket.") else None)
from lowlight_cli import cache
from lowlight_cli.errors import WeightsError
from lowlight_cli.manifest import WeightsEntry
try:
    print(cache.fetch(WeightsEntry(**json.loads(sys.argv[1])), offline=True))
except WeightsError as error:
    print(error)
sys.exit(f"opened {sockets}" if sockets else 0)
"""


@pytest.mark.parametrize("warm", [True, False])
def test_offline_opens_no_socket(warm: bool, server: FaultServer, folder: Path) -> None:
    path = f"/offline-{warm}.pt"
    url = server.play(path, fault.whole(BODY))
    if warm:
        cache.fetch(entry_at(server.play("/warm.pt", fault.whole(BODY))), patience=QUICK)
    with child_of(url, code=OFFLINE) as child:
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert server.asked(path) == []
    if warm:
        assert Path(out.strip()).read_bytes() == BODY
    else:
        assert "because offline" in out
        assert "`lowlight weights import FILE --as made-up`" in out


def test_the_audit_hook_of_the_offline_test_sees_sockets(server: FaultServer) -> None:
    url = server.play("/online.pt", fault.whole(BODY))
    with child_of(url, code=OFFLINE.replace("offline=True", "offline=False")) as child:
        _, err = child.communicate(timeout=60)
    assert child.returncode == 1
    assert "socket.connect" in err


@pytest.mark.slow
def test_offline_makes_no_network_call_to_the_system(server: FaultServer, tmp_path: Path) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed")
    calls = {}
    for mode in ("True", "False"):
        log = tmp_path / mode
        code = OFFLINE.replace("offline=True", f"offline={mode}")
        url = server.play("/strace-offline.pt", fault.whole(BODY))
        command = ["strace", "-f", "-qq", "-o", str(log), "-e", "trace=%network", sys.executable, "-c", code]
        command += [as_json(entry_at(url))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)
        calls[mode] = [line for line in log.read_text().splitlines() if "exited" not in line]
    assert calls["True"] == []
    assert any("connect(" in line for line in calls["False"])


@pytest.mark.slow
@pytest.mark.parametrize("extra", range(120))
def test_random_plays_never_leave_wrong_bytes(extra: int, server: FaultServer, folder: Path) -> None:
    """Two mirrors, each with a random play of faults, cures and lies: the outcome is right or a sentence."""
    chance = random.Random(extra)
    answers = [answer for play, _ in REFUSED.values() for answer in play]
    answers += [answer for play in CURED.values() for answer in play]
    server.play("/elsewhere", fault.whole(BODY))
    urls = [
        server.play(f"/random-{extra}-{mirror}.pt", *chance.choices(answers, k=chance.randint(1, 4)))
        for mirror in range(2)
    ]
    message = ""
    try:
        cache.fetch(entry_at(*urls), patience=HASTY)
    except WeightsError as error:
        message = str(error)
    if message:
        assert all(url in message for url in urls)
        assert leftovers(folder) == set()
    else:
        assert (folder / "made-up.pt").read_bytes() == BODY
        assert leftovers(folder) == {"made-up.pt"}
