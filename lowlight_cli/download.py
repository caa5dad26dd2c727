"""Fetch one file of known size and digest over https, from the first of several mirrors that has it.

The network is not trusted: what counts is that the bytes have the size and sha256 we know beforehand.
Everything else here is about patience (retries, resuming) and about saying clearly what went wrong. No torch here.
"""

import email.utils
import hashlib
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import BinaryIO
from urllib.parse import urljoin

import requests
import urllib3

from lowlight_cli import __version__
from lowlight_cli.errors import WeightsError
from lowlight_cli.manifest import url_fault

Progress = Callable[[int, int], None]
"""Told the bytes received so far and the bytes in all; may go back when a body starts anew."""

Notice = Callable[[str], None]
"""Told one line for a person: why there is a pause."""

_CHUNK_BYTES = 1 << 16
_HEAD_BYTES = 512  # enough of a wrong body to say what it is
_RETRIED = {408, 425, 429, 500, 502, 503, 504}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, in seconds, before an attempt or a mirror is given up.

    `floor` is the lowest speed, in bytes per second over `window` seconds, that still counts as alive.
    `backoff` is the first pause between attempts; each next one is twice as long, up to `longest_pause`,
    which also caps what a server may ask for by Retry-After.
    """

    connect: float = 10.0
    read: float = 30.0
    floor: float = 2048.0
    window: float = 30.0
    attempts: int = 6
    backoff: float = 1.0
    longest_pause: float = 60.0
    redirects: int = 5
    sleep: Callable[[float], None] = time.sleep


class DownloadError(WeightsError):
    """No mirror gave the right bytes; the message says for each one why not."""


class _MirrorError(Exception):
    """This mirror does not have the file: asking again would not help."""


class _AttemptError(Exception):
    """This attempt failed in a way that may pass; `pause` is what the server asked us to wait, in seconds."""

    def __init__(self, reason: str, *, pause: float | None = None) -> None:
        super().__init__(reason)
        self.pause = pause


class _Session(requests.Session):
    """A session that follows no redirect: requests would go on from https to http, and read any body."""

    def get_redirect_target(self, resp: requests.Response) -> None:
        """Tell requests that there is nowhere to go; `_request` follows instead."""


class _Body:
    """The part of the wanted file that has arrived, in `file`, with its digest so far."""

    def __init__(self, file: BinaryIO, size: int, *, progress: Progress | None) -> None:
        self.file = file
        self.size = size
        self._progress = progress
        self.restart()

    def restart(self) -> None:
        """Forget what has arrived."""
        self.received = 0
        self.etag: str | None = None
        self._sha256 = hashlib.sha256()
        self.file.seek(0)
        self.file.truncate()

    def append(self, chunk: bytes) -> None:
        """Add `chunk`; raises _MirrorError as soon as there is one byte too many."""
        if self.received + len(chunk) > self.size:
            raise _MirrorError(f"sent more than {self.size} bytes{self.nature()}")
        self.file.write(chunk)
        self._sha256.update(chunk)
        self.received += len(chunk)
        if self._progress:
            self._progress(self.received, self.size)

    def digest(self) -> str:
        """Return the sha256 of what has arrived."""
        return self._sha256.hexdigest()

    def nature(self) -> str:
        """Say what the bytes look like when they are a known kind of wrong, as a phrase to append."""
        self.file.seek(0)
        head = self.file.read(_HEAD_BYTES)
        self.file.seek(self.received)
        return _nature(head)


def download(
    urls: Sequence[str],
    file: BinaryIO,
    *,
    size: int,
    sha256: str,
    patience: Patience = Patience(),
    progress: Progress | None = None,
    notice: Notice | None = None,
) -> None:
    """Fill `file` (open for reading and writing) with the body of `size` bytes whose digest is `sha256`.

    Mirrors are tried in order; a body that is cut off is taken up where it stopped. `notice` is told why we wait
    or turn to the next mirror. Raises DownloadError when every mirror failed, and leaves OSError from writing
    `file` to the caller.
    """
    reasons = []
    with _Session() as session:
        session.headers.update({"Accept-Encoding": "identity", "User-Agent": f"lowlight/{__version__}"})
        for url in urls:
            body = _Body(file, size, progress=progress)
            try:
                _fill(body, session, url=url, patience=patience, notice=notice)
                if body.digest() != sha256:
                    raise _MirrorError(f"sent other bytes: sha256 {body.digest()} where {sha256} is right")
            except _MirrorError as error:
                reasons.append(f"{url} {error}")
                if notice and url != urls[-1]:
                    notice(f"{url} {error}; trying the next address")
            else:
                return
    raise DownloadError("; ".join(reasons))


def _fill(body: _Body, session: _Session, *, url: str, patience: Patience, notice: Notice | None) -> None:
    """Receive the whole body from one mirror in as many attempts as `patience` allows."""
    for attempt in range(1, patience.attempts + 1):
        try:
            with _request(session, url, body=body, patience=patience) as response:
                _accept(response, body)
                _pour(response, body, patience=patience)
            return
        except _AttemptError as error:
            if body.received == body.size:
                return  # all is here; only the end of the connection went wrong
            if attempt == patience.attempts:
                arrived = f", {body.received} of {body.size} bytes arrived" if body.received else ""
                raise _MirrorError(f"{error}{arrived} ({attempt} attempts)") from error
            pause = patience.backoff * 2 ** (attempt - 1) if error.pause is None else error.pause
            pause = min(pause, patience.longest_pause)
            if notice:
                notice(f"{url} {error}; trying again in {pause:.0f} s")
        patience.sleep(pause)


def _request(session: _Session, url: str, *, body: _Body, patience: Patience) -> requests.Response:
    """Ask for what is missing of the body, looking at every address to which we are redirected."""
    headers = {}
    if body.received:
        headers["Range"] = f"bytes={body.received}-"
        if body.etag:
            headers["If-Range"] = body.etag
    for _ in range(patience.redirects + 1):
        if fault := url_fault(url):
            raise _MirrorError(f"leads to an address that {fault}")
        with _network_errors_told(patience):
            response = session.get(
                url, headers=headers, stream=True, timeout=(patience.connect, patience.read), auth=_without_a_password
            )
        if not response.is_redirect:
            return response
        response.close()
        try:
            url = urljoin(url, response.headers["Location"])
        except ValueError:
            raise _MirrorError("leads to an address that is none") from None
    raise _MirrorError(f"redirects more than {patience.redirects} times")


def _without_a_password(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """Stand where requests would look into ~/.netrc for a host's password: weights are public."""
    return request


def _accept(response: requests.Response, body: _Body) -> None:
    """Decide from status and headers whether the body that follows is the one we want, before reading it."""
    status = response.status_code
    if status in _RETRIED:
        raise _AttemptError(f"answered {_status_text(status)}", pause=_retry_after(response))
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and body.received:
        body.restart()
        raise _AttemptError(f"answered {_status_text(status)}")
    if status not in (HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT):
        raise _MirrorError(f"answered {_status_text(status)}")
    if (encoding := response.headers.get("Content-Encoding", "identity").lower()) != "identity":
        raise _MirrorError(f"sent the file in {encoding[:20]!r} encoding although it was asked not to")
    if status == HTTPStatus.PARTIAL_CONTENT:
        _accept_range(response, body)
    else:
        body.restart()
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and length != str(body.size):
            raise _MirrorError(f"offers {length[:20]} bytes where {body.size} are right{_peek(response)}")
    etag = response.headers.get("ETag", "")
    body.etag = etag if etag.startswith('"') else None  # only a strong tag vouches for every byte


def _accept_range(response: requests.Response, body: _Body) -> None:
    """A part must begin where we stopped and belong to a file of the right size; otherwise start anew."""
    match = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if match is None or match[1] != str(body.received) or match[2] not in (str(body.size), "*"):
        body.restart()
        raise _AttemptError("sent another part than the one asked for")


def _pour(response: requests.Response, body: _Body, *, patience: Patience) -> None:
    """Read to the end of the body, which must come no slower than the floor."""
    opened, received = time.monotonic(), body.received
    with _network_errors_told(patience):
        # read1 returns what has come: read would wait for a full chunk, for hours on a dripping line.
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            body.append(chunk)
            elapsed = time.monotonic() - opened
            if elapsed >= patience.window:
                if body.received - received < patience.floor * elapsed:
                    raise _AttemptError(f"sends less than {patience.floor:.0f} bytes per second")
                opened, received = time.monotonic(), body.received
    if body.received < body.size:
        raise _AttemptError(f"ended too early{body.nature()}")


@contextmanager
def _network_errors_told(patience: Patience) -> Iterator[None]:
    """Turn the network libraries' exceptions into ours; their own words may quote a proxy's password."""
    try:
        yield
    except requests.exceptions.ProxyError as error:
        raise _MirrorError("could not be reached through the proxy that the environment names") from error
    except (requests.exceptions.SSLError, urllib3.exceptions.SSLError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise _MirrorError(
                "shows a certificate that is not trusted (a company's proxy or a wrong clock can be the "
                "cause; REQUESTS_CA_BUNDLE names further authorities)"
            ) from error
        raise _AttemptError("broke the encrypted connection") from error
    except requests.exceptions.ConnectTimeout as error:
        raise _MirrorError(f"did not accept a connection within {patience.connect:g} s") from error
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _AttemptError(f"sent nothing for {patience.read:g} s") from error
    except requests.exceptions.ConnectionError as error:
        if _never_connected(error):
            raise _MirrorError("could not be reached (no network, or no such host)") from error
        raise _AttemptError("broke the connection") from error
    except urllib3.exceptions.HTTPError as error:
        raise _AttemptError("broke the connection") from error
    except requests.RequestException as error:
        raise _MirrorError(f"gave no usable answer ({type(error).__name__})") from error


def _never_connected(error: requests.exceptions.ConnectionError) -> bool:
    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(reason, urllib3.exceptions.NewConnectionError)


def _peek(response: requests.Response) -> str:
    """Say what the beginning of an unwanted body is, as a phrase; nothing when it cannot be read."""
    try:
        return _nature(response.raw.read1(_HEAD_BYTES, decode_content=False))
    except urllib3.exceptions.HTTPError:
        return ""


def _nature(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return " (a Git LFS pointer, not the file it points to)"
    if re.match(rb"\s*<(?:!doctype|html|\?xml|head|body)", head, re.IGNORECASE):
        return " (a web page, perhaps a login or an error, not the file)"
    return ""


def _status_text(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)


def _retry_after(response: requests.Response) -> float | None:
    """Read Retry-After, given in seconds or as a date (RFC 9110, 10.2.3); None when absent or unreadable."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
