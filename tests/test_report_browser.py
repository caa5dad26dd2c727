"""A report in headless Chromium: 200 mixed pictures, driven by mouse, keys and touch, without a word on the console."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lowlight_cli.cli import app
from lowlight_cli.report.page import Card, Page, View
from lowlight_cli.report.previews import make_preview

selenium = pytest.importorskip("selenium", reason="pip install 'lowlight-cli[browser]'")

from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService  # noqa: E402  skipped without it
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--window-size=1200,900",
]  # fmt: skip
ODD_NAMES = [
    "<img src=x onerror=alert(1)>",
    "\"'&amp;",
    "${title}",
    "--> <!-- pictures -->",
    "写真 ü",
    "a\nb",
    "\u202egpj",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs chromium and chromedriver"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the report of 200 pictures: JPEG, PNG of 16 bits and grey, WebP with alpha, wide and high, five damaged."""
    folder = tmp_path_factory.mktemp("report")
    (folder / "in").mkdir()
    rng = np.random.default_rng(0)
    for index in range(200):
        height, width = [(80, 120), (120, 80), (40, 160), (160, 40), (1, 1)][index % 5]
        levels = rng.integers(0, 100, (height, width, 3), dtype=np.uint8)
        name = ODD_NAMES[index] if index < len(ODD_NAMES) else f"IMG_{index:04}"
        stem = folder / "in" / name
        if index % 40 == 39:
            Path(f"{stem}.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut off")
        elif index % 4 == 0:
            Image.fromarray(levels).save(f"{stem}.jpg", quality=90)
        elif index % 4 == 1:
            Image.fromarray(levels[..., 0].astype(np.uint16) * 257).save(f"{stem}.png")
        elif index % 4 == 2:
            Image.fromarray(np.dstack([levels, levels[..., 0] * 2])).save(f"{stem}.webp", lossless=True)
        else:
            Image.fromarray(levels[..., 0]).save(f"{stem}.png")
    page = folder / "report.html"
    command = ["enhance", folder / "in", "-o", folder / "out", "--model", "identity", "--exposure", "1", "-q"]
    ran = CliRunner().invoke(app, [str(part) for part in [*command, "--report", page]])
    assert ran.exit_code == 1, ran.output
    return page


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options=options, service=ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def page(chromium: Chrome, report: Path) -> Chrome:
    """Open the report anew, with nothing in the logs but its own doings."""
    return opened(chromium, report)


def opened(chromium: Chrome, report: Path) -> Chrome:
    chromium.get("about:blank")
    for log in ("browser", "performance"):
        chromium.get_log(log)
    chromium.get(report.as_uri())
    wait_for(chromium, lambda: chromium.execute_script("return document.images[0].naturalWidth > 0"))
    return chromium


def wait_for(chromium: Chrome, condition: Callable[[], object]) -> None:
    WebDriverWait(chromium, 20, poll_frequency=0.05).until(lambda _: condition())


def sliders(page: Chrome) -> list[WebElement]:
    return page.find_elements(By.CSS_SELECTOR, ".card .pair")


def position(slider: WebElement) -> int:
    """Return where a slider says it stands, having seen that the pictures are cut there."""
    told = int(str(slider.get_attribute("aria-valuenow")))
    cut = slider.find_element(By.CSS_SELECTOR, ".right").value_of_css_property("clip-path")
    assert abs(float(cut.split()[-1].rstrip("%)")) - told) < 1, cut
    assert str(slider.get_attribute("aria-valuetext")).startswith(f"{told} %")
    return told


def shown(page: Chrome) -> int:
    return int(page.execute_script("return document.querySelectorAll('.card img[src]').length"))


def complaints(page: Chrome) -> list[str]:
    return [entry["message"] for entry in page.get_log("browser")]


def requests(page: Chrome) -> set[str]:
    """Return the addresses asked for since the page was opened, but for data within it."""
    entries = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    addresses = {
        entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"
    }
    return {address for address in addresses if not address.startswith("data:")}


def test_200_pictures_open_without_a_complaint_or_a_request(page, report):
    assert report.stat().st_size < 25_000_000
    assert len(sliders(page)) == 195
    assert len(page.find_elements(By.CSS_SELECTOR, "section tr.bad")) == 5
    page.execute_script("scrollTo(0, document.body.scrollHeight)")
    wait_for(page, lambda: sliders(page)[-1].find_element(By.CSS_SELECTOR, ".left").get_attribute("src"))
    assert complaints(page) == []
    assert requests(page) == {report.as_uri()}


def test_names_are_shown_as_they_are(page):
    names = {element.text for element in page.find_elements(By.CSS_SELECTOR, ".card h3")[:12]}
    assert {"<img src=x onerror=alert(1)>.jpg", "${title}.webp", "--> <!-- pictures -->.png"} <= {
        *names,
        *(element.text for element in page.find_elements(By.CSS_SELECTOR, ".card h3")[-8:]),
    }


def test_the_slider_follows_the_mouse(page):
    slider = sliders(page)[0]
    assert position(slider) == 50
    width = slider.size["width"]
    grasped = ActionChains(page).move_to_element(slider).click_and_hold()
    grasped.move_by_offset(round(width * 0.3), 5).release().perform()
    assert abs(position(slider) - 80) <= 1
    grasped = ActionChains(page).move_to_element(slider).click_and_hold()
    grasped.move_by_offset(width, 0).release().move_by_offset(-width, 0).perform()
    assert position(slider) == 100, "it stops at the edge, and a mouse whose button is up moves nothing"
    assert complaints(page) == []


def test_the_slider_follows_keys(page):
    page.find_element(By.CSS_SELECTOR, "main summary").send_keys(Keys.TAB)
    slider = page.switch_to.active_element
    assert slider == sliders(page)[0]
    for keys, place in [
        (Keys.ARROW_LEFT, 48),
        (Keys.ARROW_RIGHT * 2, 52),
        (Keys.HOME, 0),
        (Keys.ARROW_LEFT, 0),
        (Keys.END, 100),
        (Keys.SHIFT + Keys.ARROW_LEFT + Keys.NULL, 90),
    ]:
        slider.send_keys(keys)
        assert position(slider) == place
    assert complaints(page) == []


def test_the_slider_follows_a_finger_and_lets_the_page_scroll(page):
    slider = sliders(page)[0]
    box = page.execute_script("return arguments[0].getBoundingClientRect().toJSON()", slider)
    y = box["top"] + box["height"] / 2

    def touch(kind: str, x: float, y: float) -> None:
        points = [] if kind == "touchEnd" else [{"x": x, "y": y}]
        page.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def swipe(moves: list[tuple[float, float]]) -> None:
        touch("touchStart", *moves[0])
        for move in moves[1:]:
            touch("touchMove", *move)
        touch("touchEnd", 0, 0)

    xs = [box["left"] + box["width"] * share for share in (0.5, 0.4, 0.3, 0.2, 0.1)]
    swipe([(x, y) for x in xs])
    assert abs(position(slider) - 10) <= 2
    swipe([(xs[0], y - down) for down in (0, 40, 80, 120, 160)])
    wait_for(page, lambda: page.execute_script("return scrollY > 40"))
    assert abs(position(slider) - 10) <= 2, "a finger that scrolls the page moves no slider"
    assert complaints(page) == []


def test_a_picture_is_enlarged_zoomed_to_its_pixels_turned_and_closed(page):
    viewer = page.find_element(By.ID, "viewer")
    first = sliders(page)[0]
    first.send_keys(Keys.ENTER)
    large = viewer.find_element(By.CSS_SELECTOR, ".pair")
    assert page.switch_to.active_element == large
    image = large.find_element(By.CSS_SELECTOR, ".left")
    wait_for(page, lambda: image.get_property("naturalWidth"))
    large.send_keys("1")
    ratio = page.execute_script("return devicePixelRatio")
    assert large.size["width"] == round(image.get_property("naturalWidth") / ratio)
    assert "The whole picture, 80" in page.find_element(By.ID, "viewer-note").text
    large.send_keys("2")
    assert large.size["width"] == round(image.get_property("naturalWidth") * 2 / ratio)
    large.send_keys(Keys.HOME)
    assert large.get_attribute("aria-valuenow") == "0"
    before = page.find_element(By.ID, "viewer-name").text
    large.send_keys(Keys.PAGE_DOWN)
    assert page.find_element(By.ID, "viewer-name").text != before
    large.send_keys(Keys.ESCAPE)
    wait_for(page, lambda: not viewer.is_displayed())
    assert page.switch_to.active_element == sliders(page)[1]
    assert complaints(page) == []


def test_only_pictures_near_the_window_are_held(page):
    at_first = shown(page)
    assert 0 < at_first < 120
    page.execute_script("scrollTo(0, document.body.scrollHeight)")
    last, first = (sliders(page)[place].find_element(By.CSS_SELECTOR, ".left") for place in (-1, 0))
    wait_for(page, lambda: last.get_attribute("src") and not first.get_attribute("src"))
    assert shown(page) < 120


def test_a_line_of_the_table_leads_to_its_picture(page):
    page.find_element(By.CSS_SELECTOR, "main summary").click()
    link = page.find_elements(By.CSS_SELECTOR, "main details a")[150]
    page.execute_script("arguments[0].click()", link)
    target = page.find_element(By.CSS_SELECTOR, ".card:target")
    assert target.find_element(By.CSS_SELECTOR, "h3").text == link.text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_all_of_it_in_either_light(page, scheme):
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
    )
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    try:
        assert page.execute_script("return document.documentElement.scrollWidth") == 360
        assert all(slider.size["width"] <= 360 for slider in sliders(page)[:5])
        colours = page.execute_script("const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]")
        ink, paper = (sum(int(part) for part in colour[4:-1].split(",")) for colour in colours)
        assert (ink < paper) == (scheme == "light")
        assert abs(ink - paper) > 500
    finally:
        page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_of_several_results_any_two_are_compared(chromium, tmp_path):
    flats = [np.full((60, 90, 3), level, dtype=np.uint8) for level in (10, 90, 170, 250)]
    views = [
        View(label, make_preview(flat, 5_000), note)
        for label, flat, note in zip(
            ("input", "model", "gamma", "reference"), flats, ("7 dB", "20 dB", "", ""), strict=True
        )
    ]
    written = Page(tmp_path / "r.html")
    written.add(Card("one", "", 90, 60, tuple(views)))
    written.write(title="t", lead="l", tables=[])
    written.close()
    page = opened(chromium, tmp_path / "r.html")
    labels = page.find_elements(By.CSS_SELECTOR, ".card .pair b")
    assert [label.text for label in labels] == ["input, 7 dB", "model, 20 dB"]
    [slider] = sliders(page)
    before = slider.find_element(By.CSS_SELECTOR, ".right").get_attribute("src")
    page.find_element(By.CSS_SELECTOR, "select.right").send_keys("reference")
    assert labels[1].text == "reference"
    assert slider.find_element(By.CSS_SELECTOR, ".right").get_attribute("src") != before
    assert complaints(page) == []
