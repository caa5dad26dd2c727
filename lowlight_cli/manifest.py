"""The table of weights that `lowlight` knows by name, read strictly from `weights_manifest.toml`.

The file is data that decides which bytes we fetch and trust, so nothing in it is guessed or let pass: an
unknown key, an address that is not https or a digest of the wrong length is an error that says where it
stands. No torch here.
"""

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeVar, cast, get_args
from urllib.parse import SplitResult, urlsplit

from lowlight_cli.errors import SettingsError, WeightsError

BackendName = Literal["darkir", "zeroig"]
NetworkValue = int | bool | str | tuple[int, ...]

MANIFEST_NAME = "weights_manifest.toml"
MANIFEST_VARIABLE = "LOWLIGHT_WEIGHTS_MANIFEST"  # a table of one's own, such as an institute's mirror
LOOPBACK_VARIABLE = "LOWLIGHT_ALLOW_LOOPBACK_HTTP"  # "1" lets tests serve weights from this machine without TLS

_SCHEMA = 1
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.(?:safetensors|pt|pth)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_URL_TEXT = re.compile(r"[!-~]+")  # printable ASCII without spaces: what a request line can carry

T = TypeVar("T")


@dataclass(frozen=True)
class WeightsEntry:
    """One file of weights: where it comes from, how to know it, and what it is made for.

    `bytes` and `sha256` are None only for files that nobody has published with a digest (`import_only`).
    `network` holds arguments of the backend's network; what is missing there is read off the tensors.
    """

    name: str
    backend: BackendName
    file: str
    licence: str
    source: str
    credit: str
    trained_on: str
    citation: str
    urls: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    embedded: bool = False
    import_only: bool = False
    network: Mapping[str, NetworkValue] = field(default_factory=lambda: MappingProxyType({}), hash=False)


Manifest = Mapping[str, WeightsEntry]


def manifest_path() -> Path:
    """Where the table lies: what LOWLIGHT_WEIGHTS_MANIFEST names, the package, or the checkout around it."""
    if chosen := os.environ.get(MANIFEST_VARIABLE):
        return Path(chosen)
    packaged = Path(__file__).with_name(MANIFEST_NAME)
    return packaged if packaged.exists() else Path(__file__).parent.with_name(MANIFEST_NAME)


def read_manifest() -> Manifest:
    """Read the table at `manifest_path()`, in the order in which it is written.

    Raises WeightsError when the file cannot be read or anything in it is not exactly as expected.
    """
    path = manifest_path()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WeightsError(f"cannot read the weights manifest {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"cannot read the weights manifest {path}: it is no text in UTF-8") from error
    try:
        return parse_manifest(text)
    except WeightsError as error:
        raise WeightsError(f"the weights manifest {path} is wrong: {error}") from error


def parse_manifest(text: str) -> Manifest:
    """Turn the TOML `text` into entries by name; raises WeightsError naming the entry and key at fault."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise WeightsError(f"it is not TOML ({error})") from error
    _refuse_unknown(table, {"schema", "citations", "weights"}, "the top level")
    if table.get("schema") != _SCHEMA:
        raise WeightsError(f"schema is {table.get('schema')!r} where this version reads {_SCHEMA}")
    citations = _take(table, "citations", dict, "the top level")
    weights = _take(table, "weights", dict, "the top level")
    entries = {name: _parse_entry(name, fields, citations) for name, fields in weights.items()}
    _refuse_shared_files(entries)
    return MappingProxyType(entries)


def find_entry(manifest: Manifest, name: str) -> WeightsEntry:
    """Return the entry called `name`; raises SettingsError with the nearest names when there is none."""
    if name in manifest:
        return manifest[name]
    near = difflib.get_close_matches(name, manifest, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(manifest)}."
    raise SettingsError(f"there are no weights called {name!r}: {hint}")


def url_fault(url: str) -> str | None:
    """Say why weights may not be fetched from `url`, or None when they may.

    Only https will do, at every hop of a redirect; plain http on the loopback interface is for tests that set
    LOWLIGHT_ALLOW_LOOPBACK_HTTP=1.
    """
    if not _URL_TEXT.fullmatch(url):
        return "is not an address"
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises ValueError for a port that is no number
    except ValueError:
        return "is not an address"
    if parts.scheme != "https" and not _is_allowed_loopback(parts):
        return "is not https"
    if not host or parts.username is not None or parts.password is not None:
        return "must name a host, and no user or password"
    return None


def _is_allowed_loopback(parts: SplitResult) -> bool:
    if parts.scheme != "http" or os.environ.get(LOOPBACK_VARIABLE) != "1":
        return False
    try:
        return ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return False


def _parse_entry(name: str, fields: object, citations: Mapping[str, object]) -> WeightsEntry:
    where = f"weights.{name}"
    if not _NAME.fullmatch(name):
        raise WeightsError(f"{where}: a name is made of a-z, 0-9, '.', '_' and '-'")
    if not isinstance(fields, dict):
        raise WeightsError(f"{where} is not a table")
    _refuse_unknown(fields, set(WeightsEntry.__dataclass_fields__) - {"name"}, where)
    backend = _take(fields, "backend", str, where)
    if backend not in get_args(BackendName):
        raise WeightsError(f"{where}: backend {backend!r} is none of {', '.join(get_args(BackendName))}")
    citation = _take(citations, _take(fields, "citation", str, where), str, "citations")
    entry = WeightsEntry(
        name=name,
        backend=cast(BackendName, backend),
        file=_matching(_take(fields, "file", str, where), _FILE, f"{where}.file"),
        licence=_take(fields, "licence", str, where),
        source=_take(fields, "source", str, where),
        credit=_take(fields, "credit", str, where),
        trained_on=_take(fields, "trained_on", str, where),
        citation=citation.strip(),
        urls=_parse_urls(_take(fields, "urls", list, where, default=[]), where),
        bytes=_take(fields, "bytes", int, where) if "bytes" in fields else None,
        sha256=_matching(_take(fields, "sha256", str, where), _SHA256, f"{where}.sha256")
        if "sha256" in fields
        else None,
        embedded=_take(fields, "embedded", bool, where, default=False),
        import_only=_take(fields, "import_only", bool, where, default=False),
        network=_parse_network(_take(fields, "network", dict, where, default={}), where),
    )
    _refuse_contradictions(entry, where)
    return entry


def _refuse_contradictions(entry: WeightsEntry, where: str) -> None:
    """A file comes from exactly one place, and only what must be imported may lack a size and a digest."""
    if [entry.embedded, entry.import_only, bool(entry.urls)].count(True) != 1:
        raise WeightsError(f"{where}: exactly one of embedded, import_only and urls is needed")
    if (entry.bytes is None) != (entry.sha256 is None):
        raise WeightsError(f"{where}: bytes and sha256 go together")
    if entry.sha256 is None and not entry.import_only:
        raise WeightsError(f"{where}: bytes and sha256 are missing")
    if entry.bytes is not None and entry.bytes < 1:
        raise WeightsError(f"{where}: bytes must be positive")


def _refuse_shared_files(entries: Manifest) -> None:
    """Two entries in one cache folder need two names, also where the file system knows no upper case."""
    owners: dict[str, str] = {}
    for entry in entries.values():
        other = owners.setdefault(entry.file.casefold(), entry.name)
        if other != entry.name:
            raise WeightsError(f"weights.{entry.name} and weights.{other} share the file name {entry.file}")


def _parse_urls(urls: list[object], where: str) -> tuple[str, ...]:
    for url in urls:
        if not isinstance(url, str):
            raise WeightsError(f"{where}.urls: {url!r} is not text")
        if fault := url_fault(url):
            raise WeightsError(f"{where}.urls: {url} {fault}")
    return tuple(str(url) for url in urls)


def _parse_network(settings: dict[str, object], where: str) -> Mapping[str, NetworkValue]:
    network: dict[str, NetworkValue] = {}
    for key, value in settings.items():
        if isinstance(value, int | str):
            network[key] = value
        elif isinstance(value, list) and all(type(item) is int for item in value):
            network[key] = tuple(value)
        else:
            raise WeightsError(f"{where}.network.{key} is neither a number, text, a switch nor a list of numbers")
    return MappingProxyType(network)


def _take(table: Mapping[str, object], key: str, kind: type[T], where: str, *, default: T | None = None) -> T:
    value = table.get(key, default)
    if value is None:
        raise WeightsError(f"{where} has no {key}")
    # bool is an int to Python, but `bytes = true` is a slip.
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise WeightsError(f"{where}.{key} is {value!r}, which is not of type {kind.__name__}")
    return value


def _matching(text: str, pattern: re.Pattern[str], where: str) -> str:
    if not pattern.fullmatch(text):
        raise WeightsError(f"{where} is {text!r}, which does not match {pattern.pattern}")
    return text


def _refuse_unknown(table: Mapping[str, object], known: set[str], where: str) -> None:
    if unknown := sorted(set(table) - known):
        raise WeightsError(f"{where} has the unknown key {unknown[0]!r}")
