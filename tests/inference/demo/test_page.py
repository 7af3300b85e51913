"""The page as people meet it: a headless Chromium draws, clicks, types, drops and reloads."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.inference.demo.conftest import Served
from tests.inference.demo.hand import draw, symbol, teach
from tests.pictures import encoded
from torchreptile.inference.demo.examples import example_set

EMPTY = "First draw an example of at least two classes."


@pytest.fixture
def opened(chromium: Any, demo: Served) -> Iterator[Callable[..., Any]]:
    """Opens pages in separate contexts; no page may ask anybody else, or say a word in the console."""
    contexts, wrong = [], []

    def open_page(**settings: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()
        watch(page)
        page.goto(demo.address)
        page.locator(".card").first.wait_for()
        return page

    def watch(page: Any) -> None:
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on(
            "console",
            lambda entry: (
                wrong.append(entry.text) if "Failed to load resource: the server responded" not in entry.text else None
            ),
        )
        page.on("request", lambda sent: None if sent.url.startswith(demo.address) else wrong.append(sent.url))

    open_page.watch = watch  # type: ignore[attr-defined]
    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def verdict(page: Any) -> str:
    """The class it says, once it says one."""
    page.locator("#verdict.answer").wait_for()
    return str(page.inner_text("#verdict b"))


def says(page: Any, name: str) -> None:
    """Wait until it does."""
    page.locator("#verdict.answer b", has_text=re.compile(f"^{name}$")).wait_for()


def there_are(page: Any, selector: str, number: int) -> None:
    """Wait until there are so many; by Playwright's own means, as the page lets nobody evaluate a string."""
    from playwright.sync_api import expect

    expect(page.locator(selector)).to_have_count(number, timeout=15_000)


def shares(page: Any, column: int) -> list[int]:
    return [
        int(text.rstrip("%")) for text in page.locator(f"#bars td:nth-of-type({column}) .percent").all_inner_texts()
    ]


def asked(page: Any, query: int, rng: random.Random) -> None:
    """Draw a new symbol in the place of the last one."""
    if page.locator("#query-pad .clear").is_enabled():
        page.click("#query-pad .clear")
    draw(page, page.locator("#query-pad canvas"), symbol(query, rng))


def test_draw_and_classify(opened: Callable[..., Any]) -> None:
    page, rng = opened(), random.Random(0)
    assert page.inner_text("#verdict") == EMPTY
    teach(page, rng)
    page.get_by_text("The network has adapted to your examples").wait_for()
    for query, name in enumerate("ABC"):
        asked(page, query, rng)
        says(page, name)
    sure = page.locator("#bars tr:nth-of-type(3) td:nth-of-type(2) .percent", has_text=re.compile("^([789].|100)%$"))
    sure.wait_for()  # the answer to the whole drawing: its first strokes may look like a C as well
    before = shares(page, 1)
    assert 97 <= sum(before) <= 103
    assert max(before) < 70  # it cannot know yet
    assert page.locator("#curve .line").get_attribute("d").count("L") == 49
    first, last = page.inner_text("#loss").split(" → ")
    assert float(last.removeprefix("< ")) < float(first)


def test_the_way_from_before_to_after_can_be_walked(opened: Callable[..., Any]) -> None:
    page, rng = opened(), random.Random(1)
    teach(page, rng, examples=1)
    asked(page, 0, rng)
    says(page, "A")
    after = shares(page, 2)
    page.focus("#stage")
    page.keyboard.press("Home")
    assert page.inner_text("#after-title") == "After 0 steps"
    assert shares(page, 2) == shares(page, 1)
    page.click("#replay")
    page.get_by_text("After 50 steps").wait_for()
    assert shares(page, 2) == after
    page.focus("#steps")
    page.keyboard.press("Home")
    page.get_by_text("After 1 step", exact=True).wait_for()
    assert page.inner_text("#lead-steps") == "1"


def test_undo_clear_keep_delete_and_bring_back(opened: Callable[..., Any]) -> None:
    page, rng = opened(), random.Random(2)
    teach(page, rng)
    asked(page, 2, rng)
    says(page, "C")
    first = page.locator(".card").first
    undo = first.locator(".undo")
    for _ in symbol(0, rng):
        undo.click()
    assert undo.is_disabled()
    assert first.locator(".examples li").count() == 1
    first.locator(".examples button").click()  # its last example: A is left out
    there_are(page, "#bars tr", 2)
    page.click("#query-pad .clear")
    page.get_by_text("The network has adapted to your examples").wait_for()
    page.click("#start-over")
    page.locator("#verdict", has_text=EMPTY).wait_for()
    page.click("#notice .action")
    page.get_by_text("The network has adapted to your examples").wait_for()
    assert page.locator(".examples li").count() == 2


def test_classes_are_named_added_and_removed(opened: Callable[..., Any]) -> None:
    page, rng = opened(), random.Random(3)
    teach(page, rng, examples=1)
    page.locator(".name").first.fill("hut")
    asked(page, 0, rng)
    says(page, "hut")
    page.click("#add-class")
    assert page.locator(".name").nth(3).input_value() == "A"  # the first letter that is free
    draw(page, page.locator(".card").nth(3).locator(".pad canvas"), [[(0.2, 0.5), (0.8, 0.5)]])
    there_are(page, "#bars tr", 4)
    for _ in range(2):
        page.locator(".remove").nth(1).click()
    there_are(page, "#bars tr", 2)
    assert page.locator(".remove:disabled").count() == 2
    says(page, "hut")
    for _ in range(18):
        page.click("#add-class")
    assert page.locator("#add-class").count() == 0  # twenty it is


def test_drawings_survive_a_reload_and_tabs_are_apart(opened: Callable[..., Any], demo: Served) -> None:
    page, rng = opened(), random.Random(4)
    other = page.context.new_page()
    opened.watch(other)  # type: ignore[attr-defined]
    other.goto(demo.address)
    page.bring_to_front()
    teach(page, rng)
    asked(page, 1, rng)
    says(page, "B")
    shown = shares(page, 2)
    page.reload()
    says(page, "B")
    assert shares(page, 2) == shown
    assert page.locator(".examples li").count() == 3
    assert other.inner_text("#verdict") == EMPTY
    other.bring_to_front()
    other.click("#example-set")
    assert verdict(other) in "ABC"
    other.reload()
    assert verdict(other) in "ABC"
    assert shares(page, 2) == shown


def test_what_comes_too_late_is_dropped(opened: Callable[..., Any]) -> None:
    """While one question is under way, no other is sent; the answer to what has changed meanwhile is not shown."""
    page, rng, held = opened(), random.Random(5), []
    teach(page, rng, examples=1)
    page.get_by_text("The network has adapted to your examples").wait_for()
    page.route("**/classify", lambda route: held.append(route))
    asked(page, 0, rng)
    page.click("#query-pad .clear")
    draw(page, page.locator("#query-pad canvas"), symbol(2, rng))
    page.wait_for_timeout(100)
    assert len(held) == 1
    held.pop().continue_()
    page.unroute("**/classify")
    assert verdict(page) == "C"


def test_pictures_become_classes_and_questions(opened: Callable[..., Any]) -> None:
    """Example drawings as files: chosen on a card, dropped on the dashed field, chosen as the new drawing."""
    page, glyphs = opened(), example_set(2, 3, seed=2)

    def file(kind: int, number: int) -> dict[str, Any]:
        large = Image.fromarray(glyphs[kind, number]).resize((280, 280), Image.Resampling.NEAREST)
        return {"name": f"glyph{kind}.png", "mimeType": "image/png", "buffer": encoded(large)}

    page.locator(".card input[type=file]").first.set_input_files([file(0, 0), file(0, 1)])
    there_are(page, ".examples li", 2)
    bytes_of = [list(file(1, number)["buffer"]) for number in range(2)]
    page.evaluate(
        """files => {
            const transfer = new DataTransfer();
            for (const bytes of files)
                transfer.items.add(new File([new Uint8Array(bytes)], "tree.png", {type: "image/png"}));
            const drop = new DragEvent("drop", {dataTransfer: transfer, bubbles: true});
            document.querySelector(".add").dispatchEvent(drop);
        }""",
        bytes_of,
    )
    there_are(page, ".examples li", 4)
    assert page.locator(".name").nth(3).input_value() == "tree"
    page.locator("#ask input[type=file]").set_input_files(file(1, 2))
    says(page, "tree")


def test_a_photograph_of_many_megapixels_is_reduced_before_it_is_sent(opened: Callable[..., Any]) -> None:
    page, photograph = opened(), Image.new("L", (4000, 3000), 255)
    ImageDraw.Draw(photograph).line([(1000, 500), (2500, 2500), (3000, 700)], fill=0, width=90)
    page.locator(".card input[type=file]").first.set_input_files(
        {"name": "tree.png", "mimeType": "image/png", "buffer": encoded(photograph)}
    )
    there_are(page, ".examples li", 1)


@pytest.mark.parametrize(
    ("name", "content", "shown"),
    [
        ("notes.png", b"not a picture", "notes.png: not a picture, or damaged at its start"),
        ("empty.png", b"", "empty.png: the file is empty."),
        ("white.png", encoded(Image.new("L", (40, 40), 255)), "white.png: it shows no dark lines on light paper."),
        ("large.png", b"x" * (11 * 2**20), "large.png: the file is larger than 10 MiB."),
        ("bomb.png", encoded(Image.new("1", (9000, 9000))), "bomb.png: it shows no dark lines on light paper."),
        ("<img src=x onerror=alert(1)>.png", b"x", "<img src=x onerror=alert(1)>.png: not a picture"),
    ],
)
def test_a_bad_file_gets_one_line_and_changes_nothing(
    opened: Callable[..., Any], name: str, content: bytes, shown: str
) -> None:
    page = opened()
    page.locator(".card input[type=file]").first.set_input_files(
        {"name": name, "mimeType": "image/png", "buffer": content}
    )
    page.locator("#notice.wrong").wait_for()
    assert shown in page.inner_text("#notice p")
    assert page.locator(".examples li").count() == 0
    page.click("#notice .close")
    assert page.locator("#notice").is_hidden()


def test_a_server_that_has_gone_is_told_and_forgotten(opened: Callable[..., Any]) -> None:
    page, rng = opened(), random.Random(6)
    page.route("**/classify", lambda route: route.fulfill(status=503, body="Service Unavailable"))
    teach(page, rng, examples=1)
    page.get_by_text("The server answered 503.").wait_for()
    page.unroute("**/classify")
    asked(page, 1, rng)
    says(page, "B")
    assert page.locator("#notice").is_hidden()


def test_everything_by_keyboard(opened: Callable[..., Any]) -> None:
    """Two classes and a question, without a pointer: a level line, an upright one, and another level one."""
    page = opened()

    def line(arrow: str, back: str) -> None:
        for _ in range(6):
            page.keyboard.press(back)
        page.keyboard.press("Space")
        for _ in range(12):
            page.keyboard.press(arrow)
        page.keyboard.press("Space")

    def tab_to(label: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if label in (page.evaluate("document.activeElement.getAttribute('aria-label')") or ""):
                return
        raise AssertionError(f"Tab never comes to {label}")

    tab_to("Example of A. Arrow")
    line("ArrowRight", "ArrowLeft")
    page.keyboard.press("Enter")
    assert page.locator(".examples li").count() == 1
    tab_to("Example of B. Arrow")
    line("ArrowDown", "ArrowUp")
    tab_to("New drawing. Arrow")
    line("ArrowRight", "ArrowLeft")
    says(page, "A")
    page.keyboard.press("Backspace")
    page.get_by_text("The network has adapted to your examples").wait_for()


def test_by_finger_on_a_phone(opened: Callable[..., Any]) -> None:
    """A touch draws instead of scrolling; nothing is wider than the screen."""
    page = opened(viewport={"width": 375, "height": 812}, has_touch=True, is_mobile=True)
    touch = page.context.new_cdp_session(page)

    def stroke(paper: Any, points: list[tuple[float, float]]) -> None:
        paper.scroll_into_view_if_needed()
        box = paper.bounding_box()
        placed = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points]
        for kind, point in (("touchStart", placed[0]), *(("touchMove", each) for each in placed[1:])):
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [point]})
        touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

    level, upright = [(0.2, 0.5), (0.5, 0.52), (0.8, 0.5)], [(0.5, 0.2), (0.52, 0.5), (0.5, 0.8)]
    stroke(page.locator(".card canvas").nth(0), level)
    stroke(page.locator(".card canvas").nth(1), upright)
    stroke(page.locator("#query-pad canvas"), upright)
    says(page, "B")
    assert page.evaluate("document.documentElement.scrollWidth") == 375


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_ink_stands_out_in_either_light(opened: Callable[..., Any], scheme: str) -> None:
    """Text and ink against their ground: a contrast of 4.5 at least, as WCAG AA asks for."""
    page = opened(color_scheme=scheme)
    colours = page.evaluate(
        """() => {
            const of = (selector, name) => getComputedStyle(document.querySelector(selector))[name];
            return [[of("body", "color"), of("body", "backgroundColor")],
                    [of(".lead", "color"), of("body", "backgroundColor")],
                    [of(".hint", "color"), of(".pad canvas", "backgroundColor")],
                    [of(".pad canvas", "color"), of(".pad canvas", "backgroundColor")],
                    [of(".number", "color"), of(".number", "backgroundColor")]];
        }"""
    )
    for ink, ground in colours:
        assert contrast(ink, ground) >= 4.5, (ink, ground)


def contrast(*colours: str) -> float:
    """Of two colours ``rgb(r, g, b)``, as WCAG 2 defines it."""
    lights = []
    for colour in colours:
        levels = np.array([int(level) for level in re.findall(r"\d+", colour)[:3]]) / 255
        linear = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
        lights.append(float(linear @ [0.2126, 0.7152, 0.0722]))
    return (max(lights) + 0.05) / (min(lights) + 0.05)


def test_strangers_see_the_token_asked_for(chromium: Any, guarded: Served) -> None:
    context = chromium.new_context()
    page = context.new_page()
    page.goto(guarded.address)
    assert "the token is missing or wrong" in page.inner_text("body")
    page.goto(f"{guarded.address}?token={guarded.token}")
    page.locator(".card").first.wait_for()
    assert page.url == guarded.address
    page.click("#example-set")
    assert verdict(page) in "ABC"
    context.close()
