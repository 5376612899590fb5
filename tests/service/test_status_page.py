"""The status page in a real browser, against a real server: it is skipped where there is none."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.browser import Page, needs_browser
from helpers.serve import TOKEN, Server, wait_for

from routelearn.routers.bundle import read_bundle, save_bundle
from routelearn.service.http import status_page

EVIL = "<img src=x onerror=document.title=1>"


@needs_browser
@pytest.mark.slow
def test_the_page_shows_what_the_service_counts(page: Page, bundle: Path) -> None:
    with Server(bundle) as server:
        page.driver.get(server.url + "/")
        wait_for(lambda: page.state() == "live")
        texts = ["What is 2 plus 2?", "Prove that the square root of 2 is irrational.", "Ωμέγα ψι"]
        reply = server.ask("/v1/score", {"queries": texts * 20})[1]
        wait_for(lambda: "60 since the start" in page.text("rate"))
        strong = reply["models"].count("sim-max")
        assert f"{100 * strong / 60:.1f} %" in page.text("share")
        for model in set(reply["models"]):
            assert f"{model} {reply['models'].count(model)} " in page.text("models").replace("\n", " ")
        fallbacks = 60 - reply["sources"].count("learned")
        assert f"{100 * fallbacks / 60:.1f} %" in page.text("fallbacks")
        assert f"novel {fallbacks}" in page.text("causes").replace("\n", " ")
        assert re.search(r"p50 [\d.]+ m?s, p99 [\d.]+ m?s", page.text("latency"))
        assert "calibration-bias" in page.text("drift")
        wait_for(lambda: page.run("return document.querySelectorAll('svg polyline').length") == 5)
        assert "0 of 256 at most" in page.text("waiting").replace("\n", " ")
        assert page.complaints() == []


@needs_browser
@pytest.mark.slow
def test_the_page_shows_what_callers_report(page: Page, bundle: Path) -> None:
    with Server(bundle) as server:
        page.driver.get(server.url + "/")
        wait_for(lambda: page.state() == "live")
        assert not page.driver.find_element("id", "cascade").is_displayed()  # nobody reported a cascade
        escalations = [{"model": "sim-small", "escalated": number % 4 == 0} for number in range(200)]
        outcomes = [{"score": 0.5, "strong_won": number % 2} for number in range(200)]
        server.ask("/v1/outcomes", {"escalations": escalations, "outcomes": outcomes})
        wait_for(lambda: page.driver.find_element("id", "cascade").is_displayed())
        assert "25.0 %" in page.text("escalation")
        assert "sim-small 200 25.0 % watch" in page.text("escalations").replace("\n", " ")
        wait_for(lambda: re.search(r"calibration\s*-bias [\d.]+ [\d.]+ stable", page.text("drift").replace("\n", " ")))
        assert page.complaints() == []


@needs_browser
@pytest.mark.slow
def test_the_page_says_when_the_server_is_gone(page: Page, bundle: Path) -> None:
    with Server(bundle) as server:
        page.driver.get(server.url + "/")
        wait_for(lambda: page.state() == "live")
        server.stop()
        wait_for(lambda: page.state() == "unreachable")
        assert page.run("return document.getElementById('content').className") == "stale"
        assert page.complaints() == []


@needs_browser
@pytest.mark.slow
def test_names_are_text_whatever_is_in_them(page: Page, bundle: Path, tmp_path: Path) -> None:
    """A model may be called like an element with a handler; the page's policy would not run it either."""
    manifest, contents = read_bundle(bundle)
    pool = [replace(model, name=EVIL + model.name) for model in manifest.pool]
    renamed = replace(manifest, pool=pool, strong=EVIL + manifest.strong, weak=EVIL + manifest.weak)
    with Server(save_bundle(tmp_path / "evil", renamed, contents), "--threshold", "0") as server:
        model = server.ask("/v1/score", {"queries": ["Hello"]})[1]["models"][0]
        page.driver.get(server.url + "/")
        wait_for(lambda: model in page.text("models"))
        assert EVIL in page.text("about")
        assert page.run("return document.querySelectorAll('img').length") == 0
        assert page.driver.title == "routelearn status"
        page.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
        wait_for(lambda: any("Content Security Policy" in text for text in page.complaints()))
        assert page.driver.title == "routelearn status"


@needs_browser
@pytest.mark.slow
def test_the_token_is_asked_for_kept_and_sent(page: Page, bundle: Path) -> None:
    with Server(bundle, ROUTELEARN_TOKEN=TOKEN) as server:
        page.driver.get(server.url + "/")
        wait_for(lambda: page.state() == "token needed")
        field = page.driver.find_element("id", "token")
        for token, expected in (("a-wrong-token-of-some-length", "This token is refused."), (TOKEN, "")):
            field.send_keys(token)
            field.submit()
            wait_for(lambda expected=expected: page.text("refused") == expected if expected else page.state() == "live")
        assert not page.driver.find_element("id", "login").is_displayed()
        page.driver.refresh()
        wait_for(lambda: page.state() == "live")
        assert page.run("return localStorage.length + document.cookie.length") == 0
        assert page.complaints() == []


@needs_browser
@pytest.mark.slow
def test_the_page_is_readable_in_the_dark_and_on_a_phone(page: Page, bundle: Path) -> None:
    with Server(bundle) as server:
        page.driver.get(server.url + "/")
        wait_for(lambda: page.state() == "live")
        colours = []
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
            colours.append(page.run("return getComputedStyle(document.body).backgroundColor"))
        assert colours[0] != colours[1]
        size = {"width": 360, "height": 700, "deviceScaleFactor": 1, "mobile": True}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert page.run("return document.documentElement.scrollWidth") <= 360
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        labels = page.run("return [...document.querySelectorAll('svg')].map(one => one.getAttribute('aria-label'))")
        assert len(labels) == 5
        assert all(labels)


def test_the_page_is_one_file_and_only_its_own_script_may_run() -> None:
    html = status_page.HTML.decode()
    assert not re.findall(r"(?:src|href)=[\"'](?!data:)", html)
    assert not re.findall(r"\son\w+=|\sstyle=|innerHTML|insertAdjacentHTML|https?://(?!www\.w3\.org/2000/svg)", html)
    policy = status_page.HEADERS["content-security-policy"]
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")


@needs_browser
@pytest.mark.slow
def test_the_page_shows_what_was_saved_also_on_a_phone(page: Page, bundle: Path, tmp_path: Path) -> None:
    prices = tmp_path / "models.toml"
    prices.write_text(
        '[[models]]\nname = "sim-max"\ninput_price = 10.0\noutput_price = 30.0\ncached_input_price = 1.0\n'
        '[[models]]\nname = "sim-small"\ninput_price = 1.0\noutput_price = 3.0\n'
    )
    log = tmp_path / "log.jsonl"
    with Server(bundle, "--pool", str(prices), "--explore", "0.5", "--decision-log", str(log), "--shadow") as server:
        page.driver.get(server.url + "/")
        wait_for(lambda: page.state() == "shadow mode")
        assert not page.driver.find_element("id", "savings").is_displayed()
    with Server(bundle, "--pool", str(prices), "--explore", "0.5", "--decision-log", str(log)) as server:
        page.driver.get(server.url + "/")
        wait_for(lambda: page.state() == "live")
        reply = server.ask("/v1/route", {"queries": [f"Say hello to Ana, number {n}." for n in range(1000)]})[1]
        calls = [
            {
                "model": decision["model"],
                "id": name,
                "input_tokens": 3000,
                "output_tokens": 100 + 50 * (n % 7),
                "session": str(n // 2),
            }
            for n, (name, decision) in enumerate(zip(reply["ids"], reply["decisions"], strict=True))
        ]
        server.ask("/v1/outcomes", {"usage": calls})
        wait_for(lambda: page.driver.find_element("id", "savings").is_displayed())
        shown = page.text("saved").replace("\n", " ")
        found = server.ask("/v1/savings")[1]
        assert found["interval"] is not None, found["why_no_interval"]
        assert f"{100 * found['saved_share']:.1f} %" in shown
        low, high = found["interval"]["saved_usd"]
        assert re.search(rf"at least {low:.2f}\d* .* at most {high:.2f}", shown), (shown, low, high)
        draws = found["interval"]["draws"]
        assert page.text("saved-note").startswith(f"1,000 requests; 95.0 % confidence, by {draws} drawn requests")
        assert found["cache_penalty_usd"] > 0
        size = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
        page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        assert page.run("return document.documentElement.scrollWidth") <= 390
        page.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        assert page.complaints() == []
