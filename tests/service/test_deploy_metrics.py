"""examples/deploy: the alerts and the dashboard ask for metrics and labels that the service has."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from helpers.image import DEPLOY
from helpers.serve import Server
from prometheus_client.parser import text_string_to_metric_families

from routelearn.data.sample import Sample

ALERTS = yaml.safe_load((DEPLOY / "alerts.yml").read_text())
DASHBOARD = json.loads((DEPLOY / "dashboard.json").read_text())
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = {
    **{rule["alert"]: rule["expr"] for rule in RULES},
    **{f"{panel['title']} {one['refId']}": one["expr"] for panel in PANELS for one in panel["targets"]},
}
#: What a query may say beside metrics and labels.
WORDS = {"by", "and", "time", "rate", "increase", "changes", "sum", "max", "count", "histogram_quantile"}
#: Labels that Prometheus adds to each sample, and a metric that it writes itself.
ADDED, UP = {"job", "instance"}, {"up": set[str]()}


def asked(query: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics that a query names, each with the labels that the query uses, in the selector or in `by`."""
    grouped = {name for group in re.findall(r"\bby\s*\(([^)]*)\)", query) for name in re.findall(r"\w+", group)}
    bare = re.sub(r"\bby\s*\([^)]*\)|\[[^]]*\]", " ", query)
    for name, selector in re.findall(r"([a-z_]\w*)\s*(\{[^}]*\})?", bare):
        if name not in WORDS:
            yield name, grouped | set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", selector))


@pytest.fixture(scope="module")
def metrics(bundle: Path, sample: Sample) -> dict[str, set[str]]:
    """The labels of each metric of a service that has answered every kind of request, by its name."""
    outcomes = {
        "outcomes": [{"score": 0.2, "strong_won": 1}] * 200,
        "escalations": [{"model": "sim-small", "escalated": True, "use_case": "chat", "latency_s": 2, "cost_usd": 1}]
        * 60,
    }
    found: dict[str, set[str]] = {}
    with Server(bundle) as server:
        for path in ("/v1/route", "/v1/score"):
            assert server.ask(path, {"queries": sample.queries[:600]})[0] == 200
        assert server.ask("/v1/outcomes", outcomes)[0] == 200
        for family in text_string_to_metric_families(server.ask("/metrics")[1]):
            for one in family.samples:
                found.setdefault(one.name, set()).update(one.labels)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", QUERIES)
def test_a_query_names_metrics_and_labels_that_the_service_has(metrics: dict[str, set[str]], name: str) -> None:
    named = list(asked(QUERIES[name]))
    assert named
    for metric, labels in named:
        assert metric in {**metrics, **UP}, f"no metric {metric} in {QUERIES[name]}"
        assert labels <= {**metrics, **UP}[metric] | ADDED, f"{metric} has no such labels: {labels}"


def test_the_names_and_the_labels_of_a_query_are_found() -> None:
    query = 'sum by (le, path) (rate(a_bucket{status=~"5..", x!="y"}[5m])) / count(b) > 0.5'
    used = {"le", "path"}
    assert list(asked(query)) == [("a_bucket", used | {"status", "x"}), ("b", used)]


def test_every_alert_is_whole_and_on_the_page() -> None:
    page = (DEPLOY.parents[1] / "docs" / "deploy.md").read_text()
    assert len({rule["alert"] for rule in RULES}) == len(RULES) > 8
    for rule in RULES:
        assert set(rule) - {"for"} == {"alert", "expr", "labels", "annotations"}, rule
        assert re.fullmatch(r"\d+m", rule.get("for", "0m"))
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert f"`{rule['alert']}`" in page
        # A summary names only labels that the query leaves on its samples.
        used = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        grouped = re.search(r"^\w+(?:\([^,]*,\s*sum)? by \(([^)]*)\)", rule["expr"].replace("\n", " "))
        if grouped:
            assert used <= set(re.findall(r"\w+", grouped[1])), rule["alert"]


def test_prometheus_reads_the_alerts_and_asks_for_the_job_that_they_name() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    assert settings["rule_files"] == ["alerts.yml"]
    (job,) = settings["scrape_configs"]
    jobs = {name for query in QUERIES.values() for name in re.findall(r'job="(\w+)"', query)}
    assert jobs == {job["job_name"]}


def test_the_panels_of_the_dashboard_have_places_of_their_own() -> None:
    taken: dict[tuple[int, int], str] = {}
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for place in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            assert place not in taken, f"{panel['title']} covers {taken[place]}"
            taken[place] = panel["title"]
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps([PANELS, DASHBOARD["templating"]]))) <= variables | {"__all"}
