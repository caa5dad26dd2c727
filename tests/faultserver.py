"""A loopback HTTP(S) server that plays faults: each path has a script of answers, one per request.

An answer is a function that writes raw bytes to the connection, so a body can be cut, stall or drip, and a
header can lie. The last answer of a script is repeated. Nothing outside this machine is touched.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Exchange:
    """One request and the connection that waits for its answer."""

    connection: socket.socket
    path: str
    headers: Mapping[str, str]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def head(self, status: str, headers: Mapping[str, str | int]) -> None:
        lines = [
            f"HTTP/1.1 {status}",
            "Connection: close",
            *(f"{key}: {value}" for key, value in headers.items()),
        ]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))


Answer = Callable[[Exchange], None]


@dataclass
class FaultServer:
    """Where the server listens, what it answers and what it was asked."""

    scheme: str
    port: int
    scripts: dict[str, list[Answer]] = field(default_factory=dict)
    seen: list[Exchange] = field(default_factory=list)

    def play(self, path: str, *answers: Answer) -> str:
        """Answer requests for `path` by these answers in turn; return its address."""
        self.scripts[path] = list(answers)
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"

    def asked(self, path: str) -> list[Exchange]:
        return [exchange for exchange in self.seen if exchange.path == path]


@contextmanager
def fault_server(*, certificate: Path | None = None) -> Iterator[FaultServer]:
    """Run a server in threads; with `certificate` (a PEM file with its key) it speaks TLS."""
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = FaultServer("https" if context else "http", listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, server, context), daemon=True).start()
        yield server


def _accept(listener: socket.socket, server: FaultServer, context: ssl.SSLContext | None) -> None:
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_serve, args=(connection, server, context), daemon=True).start()


def _serve(connection: socket.socket, server: FaultServer, context: ssl.SSLContext | None) -> None:
    # A client that hangs up in the middle is part of the play.
    with suppress(OSError), connection:
        connection.settimeout(30)
        if context is None:
            _answer(connection, server)
        else:
            with context.wrap_socket(connection, server_side=True) as encrypted:
                _answer(encrypted, server)


def _answer(connection: socket.socket, server: FaultServer) -> None:
    received = b""
    while b"\r\n\r\n" not in received:
        if not (data := connection.recv(4096)):
            return
        received += data
    first, *lines = received.decode("latin-1").split("\r\n")
    headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines if line)}
    exchange = Exchange(connection, first.split(" ")[1], headers)
    server.seen.append(exchange)
    script = server.scripts.get(exchange.path) or [status("404 Not Found")]
    (script.pop(0) if len(script) > 1 else script[0])(exchange)
    connection.shutdown(socket.SHUT_WR)


def whole(body: bytes, **headers: str) -> Answer:
    """The whole body, or the part asked for by Range."""

    def answer(exchange: Exchange) -> None:
        start = _range_start(exchange)
        part = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        status_line = "206 Partial Content" if start else "200 OK"
        exchange.head(status_line, {"Content-Length": len(body) - start, **part, **_dashed(headers)})
        exchange.send(body[start:])

    return answer


def whole_only(body: bytes, **headers: str) -> Answer:
    """The whole body with status 200, whatever part is asked for."""
    return plain("200 OK", body, **{"Content_Length": str(len(body)), **headers})


def cut(body: bytes, length: int, **headers: str) -> Answer:
    """A promise of all that is asked for, and a connection that ends after `length` bytes of it."""

    def answer(exchange: Exchange) -> None:
        start = _range_start(exchange)
        part = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"} if start else {}
        status_line = "206 Partial Content" if start else "200 OK"
        exchange.head(status_line, {"Content-Length": len(body) - start, **part, **_dashed(headers)})
        exchange.send(body[start : start + length])

    return answer


def status(line: str, **headers: str) -> Answer:
    """A status without a body."""
    return plain(line, b"", **{"Content_Length": "0", **headers})


def plain(line: str, body: bytes, **headers: str) -> Answer:
    """Exactly this status, these headers (`_` stands for `-`) and this body."""

    def answer(exchange: Exchange) -> None:
        exchange.head(line, _dashed(headers))
        exchange.send(body)

    return answer


def raw(data: bytes) -> Answer:
    """Bytes that need not be HTTP at all."""
    return lambda exchange: exchange.send(data)


def redirect(target: str, *, line: str = "302 Found") -> Answer:
    return status(line, Location=target)


def chunked(pieces: Sequence[bytes], *, end: bool = True) -> Answer:
    """A body in chunks, without a length; without `end` it breaks off."""

    def answer(exchange: Exchange) -> None:
        exchange.head("200 OK", {"Transfer-Encoding": "chunked"})
        for piece in pieces:
            exchange.send(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        if end:
            exchange.send(b"0\r\n\r\n")

    return answer


def stall(body: bytes, length: int, *, seconds: float) -> Answer:
    """A promise of the whole body, `length` bytes of it, then silence on an open connection."""

    def answer(exchange: Exchange) -> None:
        cut(body, length)(exchange)
        _wait_for_hangup(exchange, seconds)

    return answer


def silence(*, seconds: float) -> Answer:
    """No answer at all on an open connection."""
    return lambda exchange: _wait_for_hangup(exchange, seconds)


def drip(body: bytes, *, seconds: float, step: int = 1) -> Answer:
    """The body, `step` bytes at a time with a pause of `seconds` after each."""

    def answer(exchange: Exchange) -> None:
        exchange.head("200 OK", {"Content-Length": len(body)})
        for start in range(0, len(body), step):
            exchange.send(body[start : start + step])
            time.sleep(seconds)

    return answer


def reset(exchange: Exchange) -> None:
    """A connection that is torn down before any answer."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    exchange.connection.close()


def _wait_for_hangup(exchange: Exchange, seconds: float) -> None:
    exchange.connection.settimeout(seconds)
    with suppress(OSError):
        exchange.connection.recv(1)


def _range_start(exchange: Exchange) -> int:
    asked = exchange.headers.get("range", "")
    return int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0


def _dashed(headers: Mapping[str, str]) -> dict[str, str | int]:
    return {key.replace("_", "-"): value for key, value in headers.items()}
