"""Reports as files: whole, bounded, escaped, harmless to the work that they report on."""

import base64
import hashlib
import io
import json
import re
import signal
import subprocess
import sys
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_images_colour import PROFILES
from typer.testing import CliRunner, Result

from lowlight_cli.cli import app
from lowlight_cli.errors import OutputError, SettingsError
from lowlight_cli.images import Picture, thumbnail_of
from lowlight_cli.images.profiles import parse_profile
from lowlight_cli.paths import plan_jobs
from lowlight_cli.report.files import FilesReport
from lowlight_cli.report.page import Card, Page, Row, Table, View, check_page_target
from lowlight_cli.report.pictures import Pictures
from lowlight_cli.report.previews import Preview, make_preview, preview_size
from lowlight_cli.report.words import duration_in_words, moment_in_words, without_home
from lowlight_cli.results import FileResult

EVIL = "<img src=x onerror=alert(1)>\"'&amp; ${title} <!-- pictures --> <script>.png"


def lowlight(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def identity(*arguments: str | Path) -> Result:
    return lowlight("enhance", *arguments, "--model", "identity", "--device", "cpu")


def picture(path: Path, *, size: tuple[int, int] = (40, 30), seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    levels = np.random.default_rng(seed).integers(0, 90, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(levels).save(path)
    return path


class Reader(HTMLParser):
    """Reads a page as a browser would: elements with their attributes, scripts, and the text of the rest."""

    def __init__(self, page: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data: dict[str, bytes] = {}
        self.scripts: list[str] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        tag, attributes = self.elements[-1] if self.elements else ("", {})
        if tag == "script" and attributes.get("type") == "text/plain" and data.strip():
            self.data[str(attributes["id"])] = base64.b64decode(data)
        elif tag == "script" and data.strip():
            self.scripts.append(data)
        else:
            self.text += data

    def all(self, tag: str, style: str = "") -> list[dict[str, str | None]]:
        return [found for kind, found in self.elements if kind == tag and (not style or found.get("class") == style)]

    def cards(self) -> list[dict[str, object]]:
        return [json.loads(str(card["data-about"])) for card in self.all("article", "card")]


def shown(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)


def test_a_batch_is_told_whole(tmp_path):
    for index in range(3):
        picture(tmp_path / f"in/{index}.png", seed=index)
    (tmp_path / "in/1.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    picture(tmp_path / "out/2.png", seed=2)
    page = tmp_path / "pages/report.html"
    ran = identity(tmp_path / "in", "-o", tmp_path / "out", "--exposure", "2", "--report", page)
    assert ran.exit_code == 1
    assert f"report: {page}" in ran.stderr
    read = Reader(page)
    assert "1 done, 1 failed, 1 skipped" in read.text
    assert [card["name"] for card in read.cards()] == ["0.png", "2.png"]
    assert set(read.data) == {"v0-0", "v0-1", "v1-0", "v1-1"}
    before, after = shown(read.data["v0-0"]), shown(read.data["v0-1"])
    assert np.abs(before - np.asarray(Image.open(tmp_path / "in/0.png"))).mean() < 25
    assert after.mean() > before.mean() * 1.3
    [reason] = [line for line in ran.stderr.splitlines() if line.startswith(f"{tmp_path}/in/1.png: ")]
    for said in ("Failures", reason.split(": ")[1], "identity on cpu", "fp32", "torch 2", "was there already"):
        assert said in read.text


def test_results_exit_code_and_json_are_the_same_with_a_report(tmp_path):
    for index in range(4):
        picture(tmp_path / f"in/{index}.png", seed=index)
    (tmp_path / "in/3.png").write_bytes(b"no picture")
    told, written = [], []
    for more in ([], ["--report", tmp_path / "r.html"]):
        out = tmp_path / "out"
        ran = identity(tmp_path / "in", "-o", out, "--json", *more)
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        told.append((ran.exit_code, [{**line, "seconds": 0} for line in lines]))
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
        for path in out.iterdir():
            path.unlink()
    assert told[0] == told[1]
    assert written[0] == written[1]


def test_nothing_in_a_name_becomes_part_of_the_page(tmp_path):
    picture(tmp_path / "in" / EVIL)
    picture(tmp_path / "in/a\nb\u202egnp.png")
    (tmp_path / "in" / f"bad{EVIL}").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    page = tmp_path / "r.html"
    assert identity(tmp_path / "in", "-o", tmp_path / "out", "--report", page).exit_code == 1
    read = Reader(page)
    assert {card["name"] for card in read.cards()} == {EVIL, "a\\nb\\u202egnp.png"}
    assert f"bad{EVIL}" in read.text
    assert len(read.scripts) == 1
    assert not [found for _, found in read.elements if "onerror" in found]
    assert len(read.data) == 4


def test_the_page_asks_for_nothing_and_runs_only_its_own_script(tmp_path):
    page = tmp_path / "r.html"
    identity(picture(tmp_path / "a.png"), "--report", page)
    read = Reader(page)
    [policy] = [str(found["content"]) for found in read.all("meta") if "http-equiv" in found]
    digest = base64.b64encode(hashlib.sha256(read.scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    addresses = [found[name] for _, found in read.elements for name in ("src", "href") if found.get(name)]
    assert all(str(address).startswith(("data:", "#")) for address in addresses)
    assert not re.search(r"https?:|//[a-z]", page.read_text(encoding="utf-8").split('<script type="text/plain"')[0])


def test_every_slider_button_and_table_has_a_name(tmp_path):
    page = tmp_path / "r.html"
    identity(picture(tmp_path / "a.png"), "--report", page)
    read = Reader(page)
    sliders = [found for _, found in read.elements if found.get("role") == "slider"]
    assert len(sliders) == 2
    for slider in sliders:
        assert (slider["tabindex"], slider["aria-valuemin"], slider["aria-valuemax"]) == ("0", "0", "100")
    assert "a.png" in str(sliders[0]["aria-label"])
    assert all("alt" in image for image in read.all("img"))
    assert {region["aria-label"] for region in read.all("div", "scroll")} == {"All files: 1"}


@settings(max_examples=40)
@given(st.integers(1, 20_000))
def test_pages_of_200_pictures_stay_below_25_megabytes_and_larger_ones_grow_slowly(pictures):
    size = preview_size(2 * pictures)
    text = 2_600 * pictures  # measured: about 2,200 bytes of words for each card and its line in the table
    total = text + 2 * pictures * (size.most_bytes * 4 / 3 + 60)
    assert 256 <= size.side <= 1024
    if pictures <= 200:
        assert total < 25_000_000
    if pictures <= 1000:
        assert total < 56_000_000


@settings(max_examples=12)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(800, 20_000), st.integers(0, 2**31))
def test_a_preview_keeps_to_its_bytes_even_for_noise(height, width, most_bytes, seed):
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    preview = make_preview(noise, most_bytes)
    assert len(preview.content) <= most_bytes
    with Image.open(io.BytesIO(preview.content)) as image:
        assert image.size == (preview.width, preview.height)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_thumbnails_are_the_areas_means_in_any_depth(depth, channels):
    top = int(np.iinfo(depth).max)
    pixels = np.random.default_rng(1).integers(0, top, (60, 90, channels), dtype=depth, endpoint=True)
    small = thumbnail_of(Picture(pixels), 30)
    means = pixels.reshape(20, 3, 30, 3, channels).mean(axis=(1, 3)) * (255 / top)
    assert small.shape == (20, 30, 3)
    assert np.abs(small - means).max() <= 1.01


def test_transparent_parts_are_shown_on_grey():
    pixels = np.full((8, 8, 3), 10, dtype=np.uint8)
    alpha = np.zeros((8, 8), dtype=np.uint8)
    alpha[:, 4:] = 255
    small = thumbnail_of(Picture(pixels, alpha=alpha), 8)
    assert (small[:, :4] == 128).all()
    assert (small[:, 4:] == 10).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colours_of_a_profile_are_shown_as_srgb(dtype):
    icc = PROFILES["display-p3"]()
    colour = np.array([30, 90, 60]) * (np.iinfo(dtype).max // 255)
    flat = Picture(np.full((12, 12, 3), colour, dtype=dtype), icc=icc, profile=parse_profile(icc))
    expected = flat.srgb()[:, 0, 0] * 255
    assert np.abs(expected - [30, 90, 60]).max() > 2
    assert np.abs(thumbnail_of(flat, 4) - expected).max() <= 0.51


@pytest.mark.parametrize(
    ("name", "said"), [("r.txt", ".html"), ("other.html", "--overwrite"), ("folder.html", "is a folder")]
)
def test_a_target_that_cannot_be_meant_is_refused_before_work(tmp_path, name, said):
    source = picture(tmp_path / "a.png")
    (tmp_path / "other.html").write_text("<p>my own page</p>")
    (tmp_path / "folder.html").mkdir()
    ran = identity(source, "--report", tmp_path / name)
    assert ran.exit_code == 2
    assert said in ran.stderr
    assert not (tmp_path / "a_lowlight.png").exists()
    assert (tmp_path / "other.html").read_text() == "<p>my own page</p>"


def test_a_report_replaces_a_report_and_with_overwrite_another_file_but_never_an_input(tmp_path):
    source = picture(tmp_path / "a.png")
    page = tmp_path / "r.html"
    assert identity(source, "--report", page).exit_code == 0
    assert identity(source, "--report", page).exit_code == 0
    assert "1 skipped" in Reader(page).text
    (tmp_path / "other.html").write_text("<p>my own page</p>")
    check_page_target(tmp_path / "other.html", overwrite=True)
    with pytest.raises(SettingsError, match="one of the inputs"):
        check_page_target(tmp_path / "other.html", overwrite=True, inputs=[tmp_path / "other.html"])


def test_a_dry_run_writes_no_report(tmp_path):
    ran = identity(picture(tmp_path / "a.png"), "--report", tmp_path / "r.html", "--dry-run")
    assert ran.exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_pictures_that_went_away_and_streams_have_a_line_but_no_card(tmp_path):
    plan = plan_jobs([str(picture(tmp_path / "a.png"))])
    with closing(FilesReport(tmp_path / "r.html", plan, Pictures(1))) as report:
        report.add(FileResult(str(tmp_path / "a.png"), str(tmp_path / "gone.png"), "done"))
        report.add(FileResult("-", "-", "done"))
        report.write()
    read = Reader(tmp_path / "r.html")
    assert read.cards() == []
    assert "All files: 2" in read.text


def test_nothing_is_left_beside_the_page_and_a_failed_page_leaves_the_old_one(tmp_path):
    preview = Preview(4, 4, b"x" * 60_000)
    card = Card("a", "b", 4, 4, (View("before", preview), View("after", preview)))
    target = tmp_path / "r.html"
    target.write_text("the report of an earlier day")
    code = (
        "import resource, sys\nfrom pathlib import Path\n"
        "from lowlight_cli.errors import OutputError\nfrom lowlight_cli.report.page import *\n"
        "from lowlight_cli.report.previews import Preview\nimport signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"page = Page(Path({str(target)!r}))\n"
        "view = View('a', Preview(4, 4, b'x' * 60_000))\n"
        "page.add(Card('a', 'b', 4, 4, (view, view)))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try: page.write(title='t', lead='l', tables=[])\n"
        "except OutputError as error: print(error)\n"
        "page.close()\n"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "cannot write" in ran.stdout, ran.stderr
    assert target.read_text() == "the report of an earlier day"
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    page = Page(target)
    page.add(card)
    page.write(title="t", lead="l", tables=[Table("T", ("a",), [Row(("1",))])])
    page.close()
    assert [path.name for path in tmp_path.iterdir()] == ["r.html"]
    assert len(Reader(target).data) == 2


def test_a_folder_for_the_page_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot make the folder"):
        Page(tmp_path / "file/r.html")


def test_an_interrupted_batch_still_reports_what_was_done(tmp_path, forked):
    for index in range(12):
        picture(tmp_path / f"in/{index:02}.png", seed=index)
    # In the middle: each of the results takes nine changes.
    signalled = {"AUDIT_PLACE": f"{tmp_path}/out*", "AUDIT_AT": "54", "AUDIT_SIGNAL": str(int(signal.SIGINT))}
    ran = forked.run(
        "enhance", tmp_path / "in", "-o", tmp_path / "out", "--model", "identity", "--report", tmp_path / "r.html",
        call="tracing:audited", environment=signalled,
    )  # fmt: skip
    assert ran.code == 130, ran.said
    assert "Traceback" not in ran.said
    read = Reader(tmp_path / "r.html")
    assert "Interrupted: " in read.text
    assert "not begun or not finished" in read.text
    assert any((tmp_path / "out").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"in", "out", "r.html"}


def test_quality_is_reported_against_references(tmp_path):
    rng = np.random.default_rng(3)
    for name in ("one", "two"):
        clean = rng.integers(0, 256, (24, 36, 3), np.uint8)
        for folder, pixels in (("high", clean), ("low", clean // 6)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    (tmp_path / "low/one.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    page, sheet = tmp_path / "q.html", tmp_path / "sheet.png"
    arguments = ["bench", "--pairs", tmp_path / "low", tmp_path / "high", "--model", "identity", "--device", "cpu"]
    ran = lowlight(*arguments, "--report", page, "--sheet", sheet)
    assert ran.exit_code == 1, ran.output
    assert f"report: {page}" in ran.stderr
    assert sheet.exists()
    read = Reader(page)
    [card] = read.cards()
    assert [view[0] for view in card["views"]] == ["input", "identity", "gamma", "reference"]
    assert (card["width"], card["height"]) == (36, 24)
    assert len(read.data) == 4
    for said in ("Means", "PSNR GT-mean", "Failures", "identity on cpu", "GT-mean", " dB"):
        assert said in read.text
    assert lowlight("bench", "--report", page).exit_code == 2


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0.00 s"),
        (9.994, "9.99 s"),
        (9.996, "10.0 s"),
        (99.96, "1 min 40 s"),
        (3599.7, "1 h 0 min"),
        (7260, "2 h 1 min"),
    ],
)
def test_durations_are_told_to_three_digits(seconds, words):
    assert duration_in_words(seconds) == words


def test_where_the_user_lives_is_left_out_of_every_word(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home/jane"))
    folder = tmp_path / "home/jane/in"
    for name in ("a.png", "b.png"):
        picture(folder / name)
    (folder / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\nrest")
    page = tmp_path / "r.html"
    monkeypatch.setattr(sys, "argv", ["lowlight", "enhance", str(folder)])
    identity(folder, "-o", tmp_path / "home/jane/out", "--report", page)
    assert "jane" not in page.read_text(encoding="utf-8")
    assert "lowlight enhance ~/in" in Reader(page).text
    assert "~/out/a.png" in Reader(page).text
    assert without_home(f"{tmp_path}/home/janet {tmp_path}/home/jane") == f"{tmp_path}/home/janet ~"


@pytest.mark.parametrize(("seconds", "words"), [(0, "0:00.00"), (61.239, "1:01.24"), (3599.999, "1:00:00.00")])
def test_moments_are_told_as_players_do(seconds, words):
    assert moment_in_words(seconds) == words
