"""`routelearn serve` with the general router: by its name, and in the place of a bundle that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.serve import Server

pytestmark = pytest.mark.slow


def test_a_service_without_its_bundle_is_answered_by_the_general_router_unless_that_is_off(tmp_path: Path) -> None:
    words = ("--fallback", "--strong", "gpt-4o", "--weak", "gpt-4o-mini")
    query = {"queries": ["Prove that the square root of 2 is irrational."]}
    for option, source in ((), "general"), (("--no-general",), "rules"):
        with Server(tmp_path / "none", *words, *option) as server:
            assert server.ask("/healthz")[1]["answers"] == source
            assert server.ask("/v1/route", query)[1]["decisions"][0]["source"] == source
            router = server.ask("/v1/router")[1]
            assert (router["kind"], router["bundle"]) == (source, None)
            assert "no such folder" in router["unavailable"]


def test_the_general_router_is_served_by_its_name() -> None:
    with Server("general", "--strong", "gpt-4o", "--weak", "gpt-4o-mini") as server:
        router = server.ask("/v1/router")[1]
        assert (router["answers"], router["unavailable"], router["strong"]) == ("general", None, "gpt-4o")
        assert "routelearn_learned 1.0" in server.ask("/metrics")[1]
