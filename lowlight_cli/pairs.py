"""Dark pictures and their references: two folders matched by name, or the folders of a published data set.

Recognised in any case of letters: LOL v1 `our485|eval15/{low,high}`, LOL-v2 `{Train,Test}/{Low,Normal}` below
`Real_captured` and `Synthetic` (files `low00690.png` and `normal00690.png`), LOL-Blur
`{train,test}/{low_blur_noise,high_sharp_scaled}/SEQUENCE`, LSRW `{Train,Eval}/{Huawei,Nikon}/{low,high}`. Of one's own
pairs, folders called train, val and test are known as splits as well.
"""

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from lowlight_cli.errors import SettingsError
from lowlight_cli.paths import PICTURES, facts_of, files_below, why_absent

Split = Literal["train", "val", "test"]

_SIDES = (("low", "high"), ("low", "normal"), ("low_blur_noise", "high_sharp_scaled"))
_SPLITS: dict[str, Split] = {
    "our485": "train",
    "train": "train",
    "training": "train",
    "training data": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "eval15": "test",
    "eval": "test",
    "test": "test",
    "testing": "test",
}
_SIDE_PREFIX = re.compile(r"^(low|normal|high)[-_ ]?(?=.)", re.IGNORECASE)


@dataclass(frozen=True)
class Pair:
    """A dark picture and its reference; `name` tells the pair from others: `eval15/22`, `0012/0004`."""

    low: Path
    reference: Path
    name: str

    @property
    def split(self) -> Split | None:
        """The split that the folders of its name tell of, the innermost that does; None where none does."""
        return _split_of(PurePosixPath(self.name).parts[:-1])


@dataclass(frozen=True)
class Pairs:
    """What `find_pairs` found, sorted by name, and the pictures of both sides that stayed alone."""

    pairs: tuple[Pair, ...]
    unpaired_low: tuple[Path, ...] = ()
    unpaired_reference: tuple[Path, ...] = ()


def find_pairs(low: Path, reference: Path, *, split: Split | None = None) -> Pairs:
    """Match dark pictures with their references by their paths below the two folders, without suffixes or case.

    `low` and `reference` may be two files as well. Given twice the same folder, find the data sets below it
    and match each pair of folders by itself; `split` then keeps what lies in training, validation or test folders.

    Raises SettingsError when a folder is missing, a `split` has no data set or no pairs, some pairs are of no known
    split beside others that are, a match is ambiguous, or nothing matches.
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
        found = _find_data_sets(low)
        return found if split is None else _part_of(found, low, split)
    found = _match(low, reference, prefix="")
    if not found.pairs:
        raise SettingsError(f"no picture in {str(low)!r} has a reference of its name in {str(reference)!r}")
    return found


def require_known_splits(pairs: Sequence[Pair]) -> None:
    """Refuse pairs of no known split beside others of one, for they may be of any; raises SettingsError."""
    splits = {pair.split for pair in pairs}
    if None in splits and len(splits) > 1:
        stray = next(pair.low for pair in pairs if pair.split is None)
        raise SettingsError(
            f"{str(stray)!r} is of no split that its folders name, beside others of {_told(splits)}; "
            "call its folder train, val or test, or move it elsewhere"
        )


def _told(splits: Iterable[Split | None]) -> str:
    return " and ".join(sorted({split for split in splits if split is not None}))


def _split_of(folders: Iterable[str]) -> Split | None:
    told = [_SPLITS[folder.casefold()] for folder in folders if folder.casefold() in _SPLITS]
    return told[-1] if told else None


def _part_of(found: Pairs, root: Path, split: Split) -> Pairs:
    """Keep a data set's pairs and lone pictures of one split; all where no folder names any."""

    def is_wanted(path: Path) -> bool:
        return _split_of(path.relative_to(root).parts[:-1]) in (None, split)

    require_known_splits(found.pairs)
    pairs = tuple(pair for pair in found.pairs if pair.split in (None, split))
    if not pairs:
        there = _told(pair.split for pair in found.pairs)
        raise SettingsError(f"no pairs of --split {split} below {str(root)!r}; there are those of {there}")
    return Pairs(
        pairs, tuple(filter(is_wanted, found.unpaired_low)), tuple(filter(is_wanted, found.unpaired_reference))
    )


def _find_data_sets(root: Path) -> Pairs:
    """Match all pairs of folders below a data set's root, named by where they lie."""
    parts = []
    for folder, low, reference in _side_folders(root):
        prefix = "".join(f"{place}/" for place in folder.relative_to(root).parts)
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
