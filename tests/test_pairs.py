"""Pairs: folders matched by name, data sets recognised by their layout, nothing matched by guess."""

from pathlib import Path

import pytest

from lowlight_cli.errors import SettingsError
from lowlight_cli.pairs import Pair, find_pairs


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def names(found: tuple[Pair, ...]) -> list[str]:
    return [pair.name for pair in found]


def test_two_folders_are_matched_by_stem_in_any_case_and_type(tmp_path: Path) -> None:
    make(tmp_path, "dark/a.png", "dark/B.jpg", "dark/alone.png", "dark/Thumbs.db", "clean/A.JPG", "clean/b.png")
    make(tmp_path, "clean/other.png", "dark/deep/c.png", "clean/deep/c.tif")
    found = find_pairs(tmp_path / "dark", tmp_path / "clean")
    assert names(found.pairs) == ["a", "B", "deep/c"]
    assert found.pairs[0].reference == tmp_path / "clean/A.JPG"
    assert found.unpaired_low == (tmp_path / "dark/alone.png",)
    assert found.unpaired_reference == (tmp_path / "clean/other.png",)


def test_two_files_are_a_pair(tmp_path: Path) -> None:
    make(tmp_path, "dark.png", "long.jpg")
    assert names(find_pairs(tmp_path / "dark.png", tmp_path / "long.jpg").pairs) == ["dark"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            ["our485/low/2.png", "our485/high/2.png", "eval15/low/1.png", "eval15/high/1.png"],
            ["eval15/1", "our485/2"],
        ),
        (
            [
                "Real_captured/Test/Low/low00690.png",
                "Real_captured/Test/Normal/normal00690.png",
                "Synthetic/Train/Low/r01.png",
                "Synthetic/Train/Normal/r01.png",
            ],
            ["Real_captured/Test/00690", "Synthetic/Train/r01"],
        ),
        (
            [
                "test/low_blur_noise/0012/0004.png",
                "test/high_sharp_scaled/0012/0004.png",
                "train/low_blur_noise/0001/0004.png",
                "train/high_sharp_scaled/0001/0004.png",
            ],
            ["test/0012/0004", "train/0001/0004"],
        ),
        (
            [
                "Eval/Huawei/low/2001.jpg",
                "Eval/Huawei/high/2001.jpg",
                "Training data/Nikon/low/1.jpg",
                "Training data/Nikon/high/1.jpg",
            ],
            ["Eval/Huawei/2001", "Training data/Nikon/1"],
        ),
    ],
    ids=["LOL v1", "LOL-v2", "LOL-Blur", "LSRW"],
)
@pytest.mark.parametrize("case", [str, str.upper, str.lower])
def test_each_data_set_is_recognised_in_any_case(tmp_path, files, expected, case) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path, *(case(file) for file in files))
    found = find_pairs(tmp_path, tmp_path)
    assert names(found.pairs) == [case(name) for name in expected]
    for pair in found.pairs:
        assert "low" in str(pair.low.relative_to(tmp_path)).casefold()
        assert "low" not in str(pair.reference.relative_to(tmp_path)).casefold()


def test_a_split_keeps_the_folders_of_its_kind(tmp_path: Path) -> None:
    make(tmp_path, "our485/low/2.png", "our485/high/2.png", "eval15/low/1.png", "eval15/high/1.png")
    assert names(find_pairs(tmp_path, tmp_path, split="train").pairs) == ["our485/2"]
    assert names(find_pairs(tmp_path, tmp_path, split="test").pairs) == ["eval15/1"]
    inside = tmp_path / "eval15"
    assert names(find_pairs(inside, inside, split="train").pairs) == ["1"]


def test_a_validation_folder_is_a_split_of_its_own_in_any_spelling(tmp_path: Path) -> None:
    for folder in ("train", "Val", "test"):
        make(tmp_path, *(f"set/{folder}/{side}/1.png" for side in ("low", "high")))
    make(tmp_path, "set/Val/low/alone.png", "set/test/high/alone.png")
    found = find_pairs(tmp_path / "set", tmp_path / "set", split="val")
    assert names(found.pairs) == ["Val/1"]
    assert found.unpaired_low == (tmp_path / "set/Val/low/alone.png",)
    assert found.unpaired_reference == ()
    assert names(find_pairs(tmp_path / "set", tmp_path / "set", split="train").pairs) == ["train/1"]
    assert names(find_pairs(tmp_path / "set", tmp_path / "set", split="test").pairs) == ["test/1"]
    splits = {Pair(tmp_path, tmp_path, f"{folder}/1").split for folder in ("val", "valid", "VALIDATION")}
    assert splits == {"val"}


def test_pairs_of_no_known_split_beside_others_and_splits_without_pairs_are_refused(tmp_path: Path) -> None:
    make(tmp_path, "train/low/1.png", "train/high/1.png")
    with pytest.raises(SettingsError, match=r"no pairs of --split val below .*; there are those of train$"):
        find_pairs(tmp_path, tmp_path, split="val")
    make(tmp_path, "extra/low/2.png", "extra/high/2.png")
    assert names(find_pairs(tmp_path, tmp_path).pairs) == ["extra/2", "train/1"]
    told = r"extra/low/2\.png' is of no split that its folders name, beside others of train; call its folder"
    with pytest.raises(SettingsError, match=told):
        find_pairs(tmp_path, tmp_path, split="train")


def test_side_words_are_dropped_only_where_plain_names_do_not_match(tmp_path: Path) -> None:
    make(tmp_path, "a/low1.png", "b/low1.png", "b/normal1.png", "c/low_2.png", "d/normal-2.png", "d/low.png")
    assert names(find_pairs(tmp_path / "a", tmp_path / "b").pairs) == ["low1"]
    assert names(find_pairs(tmp_path / "c", tmp_path / "d").pairs) == ["2"]


def test_what_cannot_be_matched_is_said(tmp_path: Path) -> None:
    make(tmp_path, "a/1.png", "b/2.png", "c/1.png", "c/1.jpg", "empty/x.txt")
    for low, reference, message in (
        ("a", "gone", "there is no file or folder"),
        ("a", "b", "no picture in"),
        ("a", "empty", "no picture in"),
        ("a", "c", "pairs of one name"),
        ("a", "a", "no folders of pairs"),
    ):
        with pytest.raises(SettingsError, match=message):
            find_pairs(tmp_path / low, tmp_path / reference)
