"""Dark pictures and their references: two folders matched by name, or the folders of a published data set.

Recognised in any case of letters: LOL v1 `our485|eval15/{low,high}`, LOL-v2 `{Train,Test}/{Low,Normal}` below
`Real_captured` and `Synthetic` (files `low00690.png` and `normal00690.png`), LOL-Blur
`{train,test}/{low_blur_noise,high_sharp_scaled}/SEQUENCE`, LSRW `{Train,Eval}/{Huawei,Nikon}/{low,high}`.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import PICTURES, facts_of, files_below, why_absent

Split = Literal["train", "test"]

_SIDES = (("low", "high"), ("low", "normal"), ("low_blur_noise", "high_sharp_scaled"))
_SPLITS: dict[str, Split] = {
    "our485": "train",
    "train": "train",
    "training data": "train",
    "eval15": "test",
    "eval": "test",
    "test": "test",
}
_SIDE_PREFIX = re.compile(r"^(low|normal|high)[-_ ]?(?=.)", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A dark picture and its reference; `name` tells the pair from others: `eval15/22`, `0012/0004`."""

    low: Path
    reference: Path
    name: str


@dataclass(frozen=True)
class Pairs:
    """What `find_pairs` found, sorted by name, and the pictures of both sides that stayed alone."""

    pairs: tuple[Pair, ...]
    unpaired_low: tuple[Path, ...] = ()
    unpaired_reference: tuple[Path, ...] = ()


def find_pairs(low: Path, reference: Path, *, split: Split | None = None) -> Pairs:
    """Match dark pictures with their references by their paths below the two folders, without suffixes or case.

    `low` and `reference` may be two files as well. Given twice the same folder, find the data sets below it
    and match each pair of folders by itself; `split` then keeps what lies in training or in test folders.

    Raises SettingsError when a folder is missing, a `split` has no data set, a match is ambiguous, or nothing matches.
    """
    for path in (low, reference):
        if facts_of(path) is None:
            raise SettingsError(why_absent(path))
    if split is not None and not low.samefile(reference):
        raise SettingsError("--split parts a data set, so it needs the folder of one given twice")
    if low.is_file() and reference.is_file():
        return Pairs((Pair(low, reference, low.stem),))
    for path in (low, reference):
        if path.is_file():
            raise SettingsError(f"{str(path)!r} is a file; pairs are two files or two folders")
    if low.samefile(reference):
        return _find_data_sets(low, split)
    found = _match(low, reference, prefix="")
    if not found.pairs:
        raise SettingsError(f"no picture in {str(low)!r} has a reference of its name in {str(reference)!r}")
    return found


def _find_data_sets(root: Path, split: Split | None) -> Pairs:
    """Match all pairs of folders below a data set's root, named by where they lie."""
    parts = []
    for folder, low, reference in _side_folders(root):
        places = folder.relative_to(root).parts
        splits = {_SPLITS[place.casefold()] for place in places if place.casefold() in _SPLITS}
        if split is None or not splits or split in splits:
            prefix = "".join(f"{place}/" for place in places)
            parts.append(_match(low, reference, prefix=prefix))
    pairs = tuple(pair for part in parts for pair in part.pairs)
    if not pairs:
        wanted = " or ".join(f"{low} and {high}" for low, high in _SIDES)
        raise SettingsError(f"no folders of pairs below {str(root)!r}: looked for {wanted}")
    return Pairs(
        pairs,
        tuple(path for part in parts for path in part.unpaired_low),
        tuple(path for part in parts for path in part.unpaired_reference),
    )


def _side_folders(root: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Yield every folder that holds a dark and a reference folder, with the two."""
    for place, below, _ in os.walk(root):
        below.sort()
        folder = Path(place)
        named = {name.casefold(): folder / name for name in below}
        for low, reference in _SIDES:
            if low in named and reference in named:
                yield folder, named[low], named[reference]
                below[:] = [name for name in below if name.casefold() not in (low, reference)]
                break


def _match(low: Path, reference: Path, *, prefix: str) -> Pairs:
    """Match two folders by relative path; if nothing matches, without `low` or `normal` before the names."""
    lows, references = files_below(low, PICTURES), files_below(reference, PICTURES)
    for strip in (False, True):
        ours, theirs = _by_name(low, lows, strip=strip), _by_name(reference, references, strip=strip)
        shared = ours.keys() & theirs.keys()
        if shared:
            break
    pairs = [Pair(ours[key], theirs[key], prefix + _name(low, ours[key], strip=strip)) for key in sorted(shared)]
    return Pairs(
        tuple(pairs),
        tuple(path for key, path in sorted(ours.items()) if key not in shared),
        tuple(path for key, path in sorted(theirs.items()) if key not in shared),
    )


def _by_name(folder: Path, files: Sequence[Path], *, strip: bool) -> dict[str, Path]:
    """Index a folder's files by folded name; SettingsError when two share one."""
    named: dict[str, Path] = {}
    for file in files:
        key = _name(folder, file, strip=strip).casefold()
        if key in named:
            raise SettingsError(f"{str(named[key])!r} and {str(file)!r} would make pairs of one name")
        named[key] = file
    return named


def _name(folder: Path, file: Path, *, strip: bool) -> str:
    stem = _SIDE_PREFIX.sub("", file.stem) if strip else file.stem
    return file.relative_to(folder).with_name(stem).as_posix()
