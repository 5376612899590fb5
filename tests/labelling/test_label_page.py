"""The page on which a person compares answers, in a real browser against a real command."""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import Page, needs_browser
from helpers.label_server import LabelServer
from helpers.serve import wait_for

from routelearn.data.readers import read_records

pytestmark = pytest.mark.slow

STRONG, WEAK = "sim-max", "sim-small"
EVIL = "<img src=x onerror=document.title=1></script><script>document.title=1</script>"
#: How a person presses a choice.
KEYS = {
    "left": ("1", "\ue012"),
    "right": ("2", "\ue014"),
    "tie": ("t", "0", "\ue015", "b", "B"),
}


def write_answers(path: Path, count: int, text: str = "") -> Path:
    """A table of answers: an answer ends in s for the strong model and in w for the weak one."""
    rows = [
        {"prompt": f"Question {number}? {text}", "model": model, "response": f"An answer to {number}, {mark} {text}"}
        for number in range(count)
        for model, mark in ((STRONG, "s"), (WEAK, "w"))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shown(page: Page) -> dict[str, Any]:
    """The number of the showing, its prompt and both answers, or an empty prompt at the end."""
    return page.run(
        "const text = (id) => document.getElementById(id).textContent;"
        "return {number: Number(document.body.dataset.number || 0), progress: text('progress'), left: text('left'),"
        "prompt: document.getElementById('compare').hidden ? '' : text('turns'), notice: text('notice'),"
        "ready: !busy};"
    )


def open_page(page: Page, server: LabelServer) -> dict[str, Any]:
    page.driver.get(server.url)
    return wait_for(lambda: (now := shown(page))["number"] and now)


def press(page: Page, key: str) -> None:
    page.driver.find_element("tag name", "body").send_keys(key)


def after(page: Page, number: int) -> dict[str, Any]:
    """The showing after the one of a number."""
    end = time.monotonic() + 30
    while (now := shown(page))["number"] <= number or not now["ready"]:
        assert time.monotonic() < end, now
        time.sleep(0.01)
    return now


@needs_browser
def test_200_votes_by_keyboard_with_kills_in_between_lose_nothing(page: Page, tmp_path: Path) -> None:
    answers, out = write_answers(tmp_path / "answers.jsonl", 200), tmp_path / "labels.jsonl"
    chance = random.Random(20)
    first: dict[str, float] = {}
    second: dict[str, float] = {}
    standing: list[tuple[str, bool]] = []
    kills = in_flight = undone = 0
    server = LabelServer(answers, out)
    now = open_page(page, server)
    while now["prompt"]:
        number, prompt, strong_left = now["number"], now["prompt"], now["left"].strip().endswith("s")
        undo = bool(standing) and chance.random() < 0.04
        choice = "undo" if undo else chance.choice(["left", "right", "tie"])
        press(page, "u" if undo else chance.choice(KEYS[choice]))
        kill = kills < 8 and chance.random() < 0.05
        if kill:
            time.sleep(chance.random() * 0.02)
            kills += 1
            server.stop(signal.SIGKILL)
            server = LabelServer(answers, out)
            now = open_page(page, server)
        else:
            now = after(page, number)
        if now["number"] == number:  # the kill came before the vote was stored: the same pair is shown again
            in_flight += 1
            assert kill
            assert now["prompt"] == prompt
            continue
        assert now["number"] == number + 1
        if undo:
            undone += 1
            prompt, again = standing.pop()
            del (second if again else first)[prompt]
        else:
            preference = 0.5 if choice == "tie" else float((choice == "left") == strong_left)
            again = prompt in first
            (second if again else first)[prompt] = preference
            standing.append((prompt, again))
    assert (kills, len(first), len(second)) == (8, 200, 20)
    assert undone > 2
    assert in_flight < 8, "no kill came after the vote was stored"
    assert now["progress"] == "220 of 220"
    agreed = sum(first[prompt] == second[prompt] for prompt in second)
    assert f"{agreed} of 20 pairs that came twice" in page.text("summary")
    assert page.complaints() == []
    assert server.stop(signal.SIGINT) == 0
    records = read_records(out).records
    assert {record.query.strip(): record.preference for record in records} == {  # type: ignore[union-attr]
        prompt.strip(): preference for prompt, preference in first.items()
    }
    assert len(records) == 200
    for record in records:
        assert (record.model_a, record.model_b) == (STRONG, WEAK)
        assert record.response_a.strip().endswith("s")  # type: ignore[union-attr]
    log = "".join(server.log)
    assert f"200 votes are in {out}" in log
    assert f"second votes that equal the first: {agreed} of 20" in log


def fetch(url: str, content: Any = None) -> str:
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return str(reply.headers) + reply.read().decode()


def test_no_reply_names_a_model(tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "answers.jsonl", 12)
    with LabelServer(answers, tmp_path / "labels.jsonl", "--repeat-share", "0.5") as server:
        replies = [fetch(server.url), fetch(server.url + "state")]
        for number in range(1, 30):
            choice = "undo" if number % 7 == 0 else "left"
            replies.append(fetch(server.url + "vote", {"number": number, "choice": choice}))
        assert '"summary"' in replies[-1]
        for reply in replies:
            assert STRONG not in reply
            assert WEAK not in reply
            assert "swapped" not in reply
        assert server.stop(signal.SIGTERM) == 0
    assert any(f"{STRONG} is better in" in line for line in server.log)


@needs_browser
def test_prompts_and_answers_are_text_whatever_is_in_them(page: Page, tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "answers.jsonl", 2, f"{EVIL}\n  indented\n\nlast")
    with LabelServer(answers, tmp_path / "labels.jsonl") as server:
        now = open_page(page, server)
        assert f"{EVIL}\n  indented\n\nlast" in now["left"]
        assert EVIL in now["prompt"]
        assert page.text("left").endswith("\n  indented\n\nlast")
        assert page.run("return document.querySelectorAll('img').length") == 0
        assert page.driver.title == "routelearn label"
        page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
        wait_for(lambda: any("Content Security Policy" in text for text in page.complaints()))
        assert page.driver.title == "routelearn label"


@needs_browser
def test_the_page_fits_the_screen_the_phone_and_the_dark(page: Page, tmp_path: Path) -> None:
    answers = write_answers(tmp_path / "answers.jsonl", 2, "A long line without an end. " * 400 + "x" * 3000)
    with LabelServer(answers, tmp_path / "labels.jsonl") as server:
        open_page(page, server)
        colours = []
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            colours.append(page.run("return getComputedStyle(document.body).backgroundColor"))
        assert colours[0] != colours[1]
        for width, height, mobile in ((1200, 800, False), (360, 700, True)):
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
            page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            assert page.run("return document.documentElement.scrollWidth") <= width
            assert page.run("return document.documentElement.scrollHeight") <= height  # the buttons are in view
            for pane in ("left", "right"):
                seen, whole = page.run(f"return [{pane}.clientHeight, {pane}.scrollHeight]")
                assert 80 < seen < whole
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@needs_browser
def test_buttons_vote_and_the_page_says_when_the_command_is_gone(page: Page, tmp_path: Path) -> None:
    out = tmp_path / "labels.jsonl"
    with LabelServer(write_answers(tmp_path / "answers.jsonl", 5), out) as server:
        now = open_page(page, server)
        page.driver.find_element("css selector", "[data-choice=both-bad]").click()
        now = after(page, now["number"])
        page.driver.find_element("css selector", "[data-choice=skip]").click()
        now = after(page, now["number"])
        assert now["progress"] == "2 of 5"
        fetch(server.url + "vote", {"number": now["number"], "choice": "left"})  # in another window
        press(page, "2")
        now = after(page, now["number"])
        assert "had its vote already" in now["notice"]
        assert server.stop(signal.SIGINT) == 0
        press(page, "1")
        wait_for(lambda: "does not answer" in page.text("notice"))
        assert shown(page)["progress"] == "3 of 5"
    assert sorted(record.preference for record in read_records(out).records)[-1] in {0.5, 1.0}  # type: ignore[union-attr]
    assert len(read_records(out).records) == 2
