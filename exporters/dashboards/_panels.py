"""What the dashboards share: how a panel, a variable and an annotation of ours look.

A panel's number is stable: an alert links to it (`/d/mailward-overview?viewPanel=3`).  Rows number themselves from 1000.
Schema 39 is Grafana 11.0's; later ones take it as it is and bring it up to date by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as shape
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SCHEMA: Final = 39
SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
HOST: Final = 'instance=~"$host"'
SERVICE: Final = 'instance=~"$host",service=~"$service"'
UIDS: Final = "overview attack mail stack internals geography".split()
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"

Panel: TypeAlias = bargauge.Panel | stat.Panel | timeseries.Panel
Kind = TypeVar("Kind", bargauge.Panel, stat.Panel, timeseries.Panel)
Steps: TypeAlias = Sequence[tuple[float | None, str]]  # from which value on which colour; None is the lowest
CALM: Final[Steps] = ((None, GREEN),)
NONE_IS_WELL: Final[Steps] = ((None, GREEN), (1, RED))
UP: Final[Steps] = ((None, RED), (1, GREEN))
YES_NO: Final = {"0": ("down", RED), "1": ("up", GREEN)}


class Query(NamedTuple):
    """A query, and how its series are called: with `{{label}}` for a label's value."""

    expr: str
    legend: str


class Row(NamedTuple):
    """A title over the panels that follow."""

    title: str


def rate(metric: str, by: str = "", chosen: str = HOST) -> str:
    """Return how much a counter grows in a minute."""
    return f"60 * {_sum(by)} (rate({metric}{{{chosen}}}[$__rate_interval]))"


def grown(metric: str, by: str = "", chosen: str = HOST) -> str:
    """Return how much a counter grew in the time shown."""
    return f"{_sum(by)} (increase({metric}{{{chosen}}}[$__range]))"


def quantile(share: float, metric: str, by: str = "", chosen: str = HOST) -> str:
    """Return a quantile of a histogram."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{chosen}}}[$__rate_interval])))"


def _sum(by: str) -> str:
    return f"sum by ({by})" if by else "sum"


def numbers(
    number: int,
    title: str,
    text: str,
    *queries: Query,
    unit: str = "short",
    steps: Steps = CALM,
    says: Mapping[str, tuple[str, str]] | None = None,
    size: tuple[int, int] = (4, 4),
    decimals: int | None = None,
    at: tuple[int, int] | None = None,
) -> stat.Panel:
    """Return the latest values as large figures; `says` puts a word and a colour in a value's place.

    `at` is a place on the grid where the next free one will not do.
    """
    panel = _described(stat.Panel(), number, title, text, size, unit, steps)
    panel.color_mode(shape.BigValueColorMode.BACKGROUND if says else shape.BigValueColorMode.VALUE)
    panel.graph_mode(shape.BigValueGraphMode.NONE if says else shape.BigValueGraphMode.AREA)
    panel.text_mode(shape.BigValueTextMode.AUTO).reduce_options(_latest())
    if says:
        words = {
            key: model.ValueMappingResult(text=word, color=colour) for key, (word, colour) in says.items()
        }
        panel.mappings([model.ValueMap(options=words)])
    if decimals is not None:
        panel.decimals(decimals)
    if at:
        panel.grid_pos(model.GridPos(x=at[0], y=at[1], w=size[0], h=size[1]))
    for target in _targets(queries):
        panel.with_target(target)
    return panel


def bars(
    number: int,
    title: str,
    text: str,
    query: Query,
    *,
    unit: str = "short",
    steps: Steps = ((None, BLUE),),
    size: tuple[int, int] = (8, 8),
    buckets: bool = False,
) -> bargauge.Panel:
    """Return a bar for each series, in the time shown; with `buckets` one for each bucket of a histogram."""
    panel = _described(bargauge.Panel(), number, title, text, size, unit, steps)
    panel.orientation(shape.VizOrientation.HORIZONTAL).display_mode(shape.BarGaugeDisplayMode.BASIC)
    panel.min(0).decimals(0).reduce_options(_latest())
    (target,) = _targets([query], instant=True)
    if buckets:
        target.format(PromQueryFormat.HEATMAP)
    return panel.with_target(target)


def lines(
    number: int,
    title: str,
    text: str,
    *queries: Query,
    unit: str = "short",
    steps: Steps = CALM,
    size: tuple[int, int] = (12, 8),
    stacked: bool = False,
    least: float | None = 0,
) -> timeseries.Panel:
    """Return the course over time; a threshold beyond the lowest is drawn as a line."""
    panel = _described(timeseries.Panel(), number, title, text, size, unit, steps)
    panel.line_width(1).fill_opacity(40 if stacked else 10).show_points(shape.VisibilityMode.NEVER)
    panel.legend(
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(shape.LegendDisplayMode.LIST)
        .placement(shape.LegendPlacement.BOTTOM)
        .calcs(["lastNotNull", "max"])
    )
    panel.tooltip(
        common.VizTooltipOptions().mode(shape.TooltipDisplayMode.MULTI).sort(shape.SortOrder.DESCENDING)
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(shape.StackingMode.NORMAL).group("A"))
    if len(steps) > 1:
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(shape.GraphThresholdsStyleMode.DASHED)
        )
    if least is not None:
        panel.min(least)
    for target in _targets(queries):
        panel.with_target(target)
    return panel


def _described(
    panel: Kind, number: int, title: str, text: str, size: tuple[int, int], unit: str, steps: Steps
) -> Kind:
    limits = [model.Threshold(value=value, color=colour) for value, colour in steps]
    panel.id(number).title(title).description(text).span(size[0]).height(size[1]).datasource(SOURCE)
    panel.unit(unit).thresholds(build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(limits))
    return panel


def _targets(queries: Sequence[Query], *, instant: bool = False) -> list[prometheus.Dataquery]:
    targets = []
    for letter, query in zip("ABCDEFGH", queries, strict=False):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter)
        target.datasource(SOURCE)
        targets.append(target.instant() if instant else target.range())
    return targets


def _latest() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)


class Choice(NamedTuple):
    """A variable: its label in queries is chosen out of what `query` finds; without a choice all of them."""

    name: str
    label: str
    text: str
    query: str


HOSTS: Final = Choice(
    "host", "Host", "The guards that Prometheus reads", "label_values(mailward_build_info, instance)"
)
SERVICES: Final = Choice(
    "service", "Service", "The servers that clients log in to",
    f"label_values(mailward_auth_failures_total{{{HOST}}}, service)",
)  # fmt: skip


class Mark(NamedTuple):
    """An annotation: something that happened, where `expr` is above zero; `title` may name its labels."""

    name: str
    title: str
    colour: str
    expr: str


RELOADS: Final = Mark(
    "Guard started or reloaded", "Guard {{instance}} started, or took a configuration", BLUE,
    f"changes(mailward_reload_timestamp_seconds{{{HOST}}}[2m]) > 0",
)  # fmt: skip
# Of Redis, MariaDB and the machine their exporter tells: its own start is not theirs.
RESTARTS: Final = Mark(
    "Service restarted", "{{job}} restarted", ORANGE,
    'changes(process_start_time_seconds{job=~"dovecot|rspamd|prometheus"}[2m]) > 0'
    " or changes(redis_start_time_seconds[2m]) > 0 or resets(mysql_global_status_uptime[2m]) > 0"
    " or changes(node_boot_time_seconds[2m]) > 0",
)  # fmt: skip


class Screen(NamedTuple):
    """One dashboard."""

    uid: str
    title: str
    text: str
    panels: Sequence[Panel | Row]
    choices: Sequence[Choice] = (HOSTS, SERVICES)
    span: str = "now-6h"

    def dashboard(self) -> model.Dashboard:
        """Return it in the SDK's types; the panels fill their rows from the left."""
        board = build.Dashboard(self.title).uid(f"mailward-{self.uid}").description(self.text)
        board.tags(["mailward"]).refresh("30s").time(self.span, "now").readonly()
        board.tooltip(model.DashboardCursorSync.CROSSHAIR)
        board.with_variable(build.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        for choice in self.choices:
            board.with_variable(_variable(choice))
        for mark in (RELOADS, RESTARTS):
            board.annotation(_Annotation(mark))
        board.link(
            build.DashboardLink("Mailward")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["mailward"])
            .keep_time(True)
            .include_vars(True)
        )
        rows = 0
        for panel in self.panels:
            if isinstance(panel, Row):
                board.with_row(build.Row(panel.title).id(1000 + rows))
                rows += 1
            else:
                board.with_panel(panel)
        made = board.build()
        made.schema_version = SCHEMA
        return made


class _Titled(model.AnnotationQuery):
    """Grafana's Prometheus annotations have a title that the SDK does not know."""

    title: str

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), "titleFormat": self.title}


class _Annotation(Builder[model.AnnotationQuery]):
    def __init__(self, mark: Mark) -> None:
        self._mark = mark

    def build(self) -> model.AnnotationQuery:
        """Return the annotation."""
        made = _Titled(
            name=self._mark.name, datasource=SOURCE, icon_color=self._mark.colour, expr=self._mark.expr
        )
        made.title = self._mark.title
        return made


def _variable(choice: Choice) -> build.QueryVariable:
    everything = model.VariableOption(text=["All"], value=["$__all"], selected=True)
    return (
        build.QueryVariable(choice.name)
        .label(choice.label)
        .description(choice.text)
        .query(
            {
                "query": choice.query,
                "qryType": 1,
                "refId": "PrometheusVariableQueryEditor-VariableQuery",
            }
        )
        .datasource(SOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )
