"""The dashboards without Grafana: generated as they stand there, whole, and in the SDK's types."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from exporters.dashboards.written import FOLDER, generated
from tests.exporters.prometheus import VARIABLES, filled, metric_names, selectors

ROOT = Path(__file__).parent.parent.parent
UIDS = [f"mailward-{name}" for name in "overview attack mail stack internals geography".split()]
BOARDS = {name: json.loads(text) for name, text in generated().items()}
COLUMNS = 24
SCREEN = 22  # rows of 38 pixels that a screen of 1080 shows below Grafana's own bars


def panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def test_the_files_are_what_the_code_writes():
    written = {path.name: path.read_text() for path in FOLDER.glob("*.json")}
    assert written == generated(), "python -m exporters.dashboards"


def test_every_dashboard_has_its_stable_name():
    assert [board["uid"] for board in BOARDS.values()] == UIDS
    assert len({board["title"] for board in BOARDS.values()}) == len(UIDS)


@pytest.mark.parametrize("name", BOARDS)
def test_the_sdk_reads_what_it_wrote(name):
    register_default_plugins()
    given = BOARDS[name]
    again = json.loads(json.dumps(Dashboard.from_json(given), cls=JSONEncoder))
    for annotation in given["annotations"]["list"]:
        assert annotation.pop("titleFormat")  # Grafana's Prometheus plugin has it, the SDK has not
    assert again == given


@pytest.mark.parametrize("name", BOARDS)
def test_panels_have_numbers_of_their_own_and_lie_beside_each_other(name):
    board = BOARDS[name]
    numbers = [panel["id"] for panel in board["panels"]]
    assert len(set(numbers)) == len(numbers)
    assert all(panel["id"] >= 1000 for panel in board["panels"] if panel["type"] == "row")
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] >= 0
        assert at["w"] > 0
        assert at["x"] + at["w"] <= COLUMNS, panel["title"]
        cells = set(itertools.product(range(at["x"], at["x"] + at["w"]), range(at["y"], at["y"] + at["h"])))
        assert not taken & cells, f"{panel['title']} lies on another"
        taken |= cells


def test_the_overview_is_one_screen():
    ends = [panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in BOARDS["overview.json"]["panels"]]
    assert max(ends) <= SCREEN


@pytest.mark.parametrize("name", BOARDS)
def test_every_panel_says_what_it_shows(name):
    source = {"type": "prometheus", "uid": "${datasource}"}
    for panel in panels(BOARDS[name]):
        assert panel["title"]
        assert len(panel["description"]) > 10
        assert panel["description"].endswith("."), panel["description"]
        assert panel["datasource"] == source
        defaults = panel["fieldConfig"]["defaults"]
        assert defaults["unit"]
        values = [step["value"] for step in defaults["thresholds"]["steps"]]
        assert values[0] is None
        assert values[1:] == sorted(values[1:])
        targets = panel["targets"]
        assert targets
        assert len({target["refId"] for target in targets}) == len(targets)
        for target in targets:
            assert target["refId"]
            assert target["datasource"] == source
            assert metric_names(filled(target["expr"]))
            assert target["legendFormat"]


@pytest.mark.parametrize("name", BOARDS)
def test_grafana_11_and_12_take_the_schema(name):
    assert BOARDS[name]["schemaVersion"] == 39  # 11.0's; 12 brings it up to date when it loads it


@pytest.mark.parametrize("name", BOARDS)
def test_each_has_its_variables_annotations_and_the_way_to_the_others(name):
    board = BOARDS[name]
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert next(iter(variables)) == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    choices = {"stack.json": ["job", "target"], "geography.json": ["host"]}
    assert list(variables)[1:] == choices.get(name, ["host", "service"])
    used = {
        name
        for panel in panels(board)
        for target in panel["targets"]
        for name in VARIABLES
        if name in target["expr"]
    }
    assert {f"${name}" for name in variables if name != "datasource"} <= used, "a variable that nothing reads"
    assert len(board["annotations"]["list"]) == 2
    (link,) = board["links"]
    assert (link["type"], link["tags"]) == ("dashboards", board["tags"])
    assert link["includeVars"]
    assert link["keepTime"]


def test_metric_names_are_found_in_promql():
    expr = (
        'histogram_quantile(0.9, sum by (le, job) (rate(a_bucket{x="up{y}",z=~"a|b"}[5m] offset 1w))) > bool 0'
        " and on (instance) group_left(b_label) job:c:rate5m / 1e-6 unless absent(d) or time() - e @ 100 > Inf"
    )
    assert metric_names(expr) == {"a_bucket", "job:c:rate5m", "d", "e"}
    assert selectors('a{b="c"} + sum(a{d!="e"}) + f') == {"a": {'a{b="c"}', 'a{d!="e"}'}}


def test_neither_the_guard_nor_its_wheel_takes_them_along():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "exporters/dashboards" in project["tool"]["hatch"]["build"]["targets"]["wheel"]["exclude"]
    code = "import sys, guard.cli, guard.app, exporters.guard; sys.exit('grafana_foundation_sdk' in str(list(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
