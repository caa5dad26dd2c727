"""Promises of the one writer: complete or not at all, and an existing file survives every failure."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lowlight_cli.atomic import atomic_file, atomic_path, preserve_times, remove_parts, write_atomically
from lowlight_cli.errors import OutputError


def test_a_new_file_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new.bin", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["new.bin"]
    assert (tmp_path / "new.bin").read_bytes() == b"content"


def test_nothing_stands_under_the_final_name_while_the_file_is_written(tmp_path: Path) -> None:
    target = tmp_path / "new.bin"
    with atomic_file(target) as file:
        file.write(b"half")
        file.flush()
        assert not target.exists()
        (part,) = tmp_path.iterdir()
        assert part.name.startswith(".new.bin.")
        assert part.suffix == ".part"
    assert target.read_bytes() == b"half"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
def test_an_exception_leaves_the_old_file_and_no_temporary_one(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "old.bin"
    target.write_bytes(b"old")

    def fail_half_way() -> None:
        with atomic_file(target, overwrite=True) as file:
            file.write(b"new")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_an_existing_file_is_refused_before_any_work_without_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "old.bin"
    target.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already"), atomic_file(target):
        pytest.fail("the block must not run")
    assert target.read_bytes() == b"old"


def test_a_file_that_appears_meanwhile_is_not_replaced_without_overwrite(tmp_path: Path) -> None:
    target = tmp_path / "late.bin"

    def race() -> None:
        with atomic_file(target) as file:
            file.write(b"ours")
            target.write_bytes(b"theirs")

    with pytest.raises(OutputError, match="exists already"):
        race()
    assert target.read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("mode", [0o640, 0o666])
def test_overwrite_replaces_and_keeps_the_permissions(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "old.bin"
    target.write_bytes(b"old")
    target.chmod(mode)
    write_atomically(target, b"new", overwrite=True)
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == mode


def test_a_new_file_has_the_permissions_the_umask_leaves(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new.bin", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.bin").stat().st_mode) == 0o640


def test_through_a_link_the_file_behind_it_is_replaced_and_the_link_stays(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.bin", tmp_path / "link.bin"
    real.write_bytes(b"old")
    link.symlink_to(real)
    write_atomically(link, b"new", overwrite=True)
    assert link.is_symlink()
    assert real.read_bytes() == b"new"


def test_what_a_killed_writer_left_is_removed_also_where_a_link_led_it(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real, link = tmp_path / "elsewhere" / "real.bin", tmp_path / "link.bin"
    link.symlink_to(real)
    left, other = real.with_name(".real.bin.0123abcd.part"), real.with_name(".other.bin.0123abcd.part")
    left.touch()
    other.touch()
    remove_parts(link)
    assert sorted(real.parent.iterdir()) == [other]


def test_a_link_that_goes_in_circles_is_one_sentence(tmp_path: Path) -> None:
    one, two = tmp_path / "one.bin", tmp_path / "two.bin"
    one.symlink_to(two)
    two.symlink_to(one)
    with pytest.raises(OutputError, match=r"one\.bin"):
        write_atomically(one, b"new", overwrite=True)


def test_a_folder_that_is_not_there_yet_is_made(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new" / "newer" / "new.bin", b"content")
    assert (tmp_path / "new" / "newer" / "new.bin").read_bytes() == b"content"


def test_a_folder_in_the_place_of_a_file_and_the_reverse_are_one_clear_sentence_each(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="not a plain file"):
        write_atomically(tmp_path, b"", overwrite=True)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"cannot make the folder .*file/below: Not a directory"):
        write_atomically(tmp_path / "file" / "below" / "new.bin", b"")
    with pytest.raises(OutputError, match=r"cannot make the folder .*file: File exists"):
        write_atomically(tmp_path / "file" / "new.bin", b"")


def test_a_name_of_the_longest_length_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 125 + ".png")
    write_atomically(target, b"content")
    assert target.read_bytes() == b"content"


def test_a_writer_that_wants_a_path_gets_one_in_the_same_folder(tmp_path: Path) -> None:
    target = tmp_path / "clip.mp4"
    with atomic_path(target) as part:
        assert part.parent == tmp_path
        part.write_bytes(b"clip")
    assert target.read_bytes() == b"clip"


def test_a_full_disk_leaves_the_old_file(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: write() fails half-way, for real.
    target = tmp_path / "old.bin"
    target.write_bytes(b"old")
    program = f"""
import resource, signal
from pathlib import Path
from lowlight_cli.atomic import atomic_file
from lowlight_cli.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    with atomic_file(Path({str(target)!r}), overwrite=True) as file:
        for _ in range(8):
            file.write(bytes(1 << 14))
            file.flush()
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_a_disk_that_is_full_in_the_middle_of_a_write_is_noticed_by_every_encoder(tmp_path: Path, format: str) -> None:
    # The first write gets one byte onto the disk and says so: a short write, which Pillow itself does not look at.
    target = tmp_path / "new.bin"
    program = f"""
import resource
from pathlib import Path
from PIL import Image
from lowlight_cli.atomic import atomic_file
from lowlight_cli.errors import OutputError
picture = Image.new("RGB", (30, 20), (9, 9, 9))
resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))
try:
    with atomic_file(Path({str(target)!r})) as file:
        picture.save(file, {format!r})
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot write" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "old.bin"
    target.write_bytes(b"old")
    program = f"""
import time
from pathlib import Path
from lowlight_cli.atomic import atomic_file
with atomic_file(Path({str(target)!r}), overwrite=True) as file:
    file.write(b"new")
    file.flush()
    print("ready", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
    assert target.read_bytes() == b"old"


def test_times_are_carried_over_to_the_nanosecond(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"")
    target.write_bytes(b"")
    then = time.time_ns() - 10**15 + 123_456_789
    os.utime(source, ns=(then, then))
    preserve_times(source, target)
    assert target.stat().st_mtime_ns == source.stat().st_mtime_ns
