"""Many processes at the price of one: a server that has the libraries loaded forks a child for each run.

A child is a process like any other: it has its own streams, folder, limits and signals, and the system counts its
memory. It ends as the interpreter does (threads, exit functions, streams flushed, code 120 where that fails) but for
the freeing of every object, which takes torch a second. What a fork cannot change, the encodings of names and streams,
is set per server by its environment.

A child may be told to wait at a gate until a tracer has attached: `strace -p` can then count and break its calls.
"""

import atexit
import contextlib
import importlib
import io
import json
import os
import resource
import select
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

TESTS = Path(__file__).parent


@dataclass(frozen=True)
class Ran:
    """How a process ended: its code (negative: a signal), what it said, how long it took and its peak of memory."""

    code: int
    out: bytes
    err: bytes
    seconds: float
    peak_bytes: int

    @property
    def said(self) -> str:
        return (self.out + self.err).decode("utf-8", "backslashreplace")


@dataclass
class Child:
    """A running process of a server."""

    pid: int
    _connection: socket.socket
    _streams: dict[int, int] = field(default_factory=dict)
    _gate: int | None = None

    def go(self) -> None:
        """Let a child through its gate."""
        assert self._gate is not None
        os.write(self._gate, b"x")

    @property
    def is_alive(self) -> bool:
        """Whether the child is still running."""
        return not select.select([self._connection], [], [], 0)[0]

    def send(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def ended(self, seconds: float = 120) -> Ran:
        """Wait for the end; a process that takes longer is killed and is an error."""
        self._connection.settimeout(seconds)
        try:
            told = json.loads(self._connection.recv(4096))
        except TimeoutError:
            self.send(signal.SIGKILL)
            raise AssertionError(f"it hangs; so far it said {self._said(2)[-2000:]!r}") from None
        out, err = self._said(1), self._said(2)
        self._connection.close()
        for descriptor in (*self._streams.values(), *([] if self._gate is None else [self._gate])):
            os.close(descriptor)
        return Ran(told["code"], out, err, told["seconds"], told["peak_bytes"])

    def _said(self, number: int) -> bytes:
        if number not in self._streams:
            return b""
        return os.read(self._streams[number], 1 << 28)


class Forks:
    """A server and the way to it. See `forks`."""

    def __init__(self, address: str) -> None:
        self._address = address

    def start(
        self,
        *arguments: str | bytes | Path,
        call: str = "forks:run_lowlight",
        stdin: bytes | int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str | None] | None = None,
        limits: Mapping[str, int] | None = None,
        closed: Collection[int] = (),
        gated: bool = False,
    ) -> Child:
        """Start a child: `call` is `module:function`, which finds `arguments` in sys.argv.

        Streams are descriptors; what is not given is kept in memory and told at the end. Those whose numbers are
        `closed` the child does not have at all. `environment` is over the server's; None takes a variable away.
        `limits` are names of `resource`, such as RLIMIT_FSIZE, with their values.
        """
        # In memory, but for a child whose files are limited: there a pipe, for the limit is on such memory too.
        make = _pipe if limits and "RLIMIT_FSIZE" in limits else _memory
        made = {number: make() for number, given in ((1, stdout), (2, stderr)) if given is None}
        source = stdin
        if isinstance(stdin, bytes):
            source = os.memfd_create("stdin")
            os.write(source, stdin)
            os.lseek(source, 0, os.SEEK_SET)
        elif stdin is None:
            source = os.open(os.devnull, os.O_RDONLY)
        assert isinstance(source, int)
        gate = os.pipe() if gated else None
        request = {
            "arguments": [os.fsencode(one).hex() for one in arguments],
            "call": call,
            "folder": os.fsencode(folder or Path.cwd()).hex(),
            "environment": dict(environment or {}),
            "limits": dict(limits or {}),
            "closed": list(closed),
            "gated": gated,
        }
        descriptors = [
            source,
            stdout if stdout is not None else made[1][1],
            stderr if stderr is not None else made[2][1],
        ]
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        connection.connect(self._address)
        socket.send_fds(connection, [json.dumps(request).encode()], descriptors + ([gate[0]] if gate else []))
        pid = json.loads(connection.recv(4096))["pid"]
        if not isinstance(stdin, int):
            os.close(source)
        if gate:
            os.close(gate[0])
        for _, written in made.values():
            os.close(written)
        kept = {number: ends[0] for number, ends in made.items()}
        return Child(pid, connection, kept, gate[1] if gate else None)

    def run(self, *arguments: str | bytes | Path, seconds: float = 120, **options: Any) -> Ran:
        """Start a child and wait for its end; options as for `start`."""
        return self.start(*arguments, **options).ended(seconds)


def _memory() -> tuple[int, int]:
    """Return descriptors to read and to write a file in memory."""
    written = os.memfd_create("kept")
    return os.open(f"/proc/self/fd/{written}", os.O_RDONLY), written


def _pipe() -> tuple[int, int]:
    """Return the ends of a pipe that never blocks its reader; it holds 64 KiB."""
    read, written = os.pipe()
    os.set_blocking(read, False)
    return read, written


@contextlib.contextmanager
def forks(*preload: str, environment: Mapping[str, str] | None = None) -> Iterator[Forks]:
    """Run a server that has `preload` done, modules or `module:function`s to call, in `environment` over this one."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"{folder}/socket"
        mine, theirs = os.pipe()
        own = {
            "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS / "faults"), str(TESTS.parent)]),
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        command = [sys.executable, "-m", "forks", address, str(mine), *preload]
        server = subprocess.Popen(
            command, env={**os.environ, **own, **(environment or {})}, pass_fds=[mine], stdin=subprocess.DEVNULL
        )
        os.close(mine)
        try:
            while not Path(address).exists():
                assert server.poll() is None, "the server did not start"
                time.sleep(0.01)
            yield Forks(address)
        finally:
            os.close(theirs)  # the server ends, and its children with it, when nobody holds the other end
            server.wait()


def run_lowlight() -> None:
    """Be the command line."""
    from lowlight_cli.__main__ import main

    main()


def execute() -> None:
    """Be a program that is given as text: the first of the arguments, which sees the others."""
    text = sys.argv.pop(1)
    exec(compile(text, "<text>", "exec"), {"__name__": "__main__"})


def rehearse() -> None:
    """Run the command once on a tiny picture, so that what is loaded late is loaded in the server already."""
    from PIL import Image

    from lowlight_cli.cli import app

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        Image.new("RGB", (8, 8)).save(f"{folder}/a.png")
        app(["enhance", f"{folder}/a.png", "--model", "identity", "--device", "cpu"], standalone_mode=False)


def _serve(address: str, lifeline: int) -> Callable[[], None] | None:
    """Fork a child per request; return twice: None in the server at its end, in each child what it is to do."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(f"{address}.new")
    listener.listen(64)
    Path(f"{address}.new").rename(address)
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(lifeline, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj == lifeline:
                for running in list(selector.get_map().values()):
                    if running.data:
                        os.kill(running.data[1], signal.SIGKILL)
                return None
            if key.fileobj is not listener:
                selector.unregister(key.fileobj)
                os.close(key.fd)
                _tell_end(*key.data)
                continue
            connection, _ = listener.accept()
            data, descriptors, _, _ = socket.recv_fds(connection, 1 << 20, 8)
            started = time.perf_counter()
            if (pid := os.fork()) == 0:
                return lambda: _become(json.loads(data), descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            connection.send(json.dumps({"pid": pid}).encode())
            selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (connection, pid, started))


def _tell_end(connection: socket.socket, pid: int, started: float) -> None:
    _, status, usage = os.wait4(pid, 0)
    ended = {
        "code": os.waitstatus_to_exitcode(status),
        "seconds": time.perf_counter() - started,
        "peak_bytes": usage.ru_maxrss * 1024,
    }
    with contextlib.suppress(OSError):  # nobody may be listening any more
        connection.send(json.dumps(ended).encode())
    connection.close()


def _become(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    highest = max(descriptors) + 1
    moved = [os.dup2(descriptor, highest + place) for place, descriptor in enumerate(descriptors)]
    for place, descriptor in enumerate(moved):
        os.dup2(descriptor, place)
    os.closerange(len(moved), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    # Anew, because a stream remembers whether it could seek; the encodings are the server's.
    sys.stdin = sys.__stdin__ = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _writer(1, sys.stdout)
    sys.stderr = sys.__stderr__ = _writer(2, sys.stderr)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it, and so would its children
    for number in request["closed"]:
        os.close(number)
        name = ("stdin", "stdout", "stderr")[number]
        setattr(sys, name, None)  # as the interpreter has it that is started without the stream
        setattr(sys, f"__{name}__", None)
    os.chdir(bytes.fromhex(request["folder"]))
    for name, value in request["environment"].items():
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    for name, value in request["limits"].items():
        kind = getattr(resource, name)
        resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))
    if request["gated"]:
        os.read(3, 1)
        os.close(3)
    sys.argv = ["lowlight", *(os.fsdecode(bytes.fromhex(one)) for one in request["arguments"])]
    _called(request["call"])


def _writer(descriptor: int, like: TextIO) -> TextIO:
    raw = open(descriptor, "wb", closefd=False)  # noqa: SIM115
    return io.TextIOWrapper(raw, encoding=like.encoding, errors=like.errors, line_buffering=descriptor == 2)


def _live(task: Callable[[], None]) -> None:
    """Run a child's task and end as the interpreter would, with its words and its code."""
    code = 0
    try:
        task()
    except SystemExit as end:
        if end.code is not None and not isinstance(end.code, int):
            print(end.code, file=sys.stderr)
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # what Python itself calls before its exit functions
        atexit._run_exitfuncs()
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
    for stream in (sys.stdout, sys.stderr):
        if stream is None:
            continue
        try:
            stream.flush()
        except OSError as error:
            with contextlib.suppress(OSError):
                os.write(2, f"Exception ignored in: {stream!r}\n{type(error).__name__}: {error}\n".encode())
            code = 120
    os._exit(code & 0xFF)


def _called(name: str) -> None:
    module, _, function = name.partition(":")
    loaded = importlib.import_module(module)
    if function:
        getattr(loaded, function)()


if __name__ == "__main__":
    for _name in sys.argv[3:]:
        _called(_name)
    _task = _serve(sys.argv[1], int(sys.argv[2]))
    _live(_task or (lambda: None))
