"""Guard internals: sources, parsers, memory, speed, fleet, and whether the program itself is well."""

from __future__ import annotations

from typing import Final

from exporters.dashboards._panels import (
    GREEN,
    HOST,
    HOSTS,
    NONE_IS_WELL,
    RED,
    SERVICE,
    SERVICES,
    UP,
    YELLOW,
    YES_NO,
    Query,
    Row,
    Screen,
    lines,
    numbers,
    quantile,
    rate,
)

SCREEN: Final = Screen(
    "internals",
    "Mailward: guard internals",
    "Is the guard well: what it reads, how far behind it is, what it could not read, what it forgot.",
    [
        numbers(1, "Sources", "Each log, and whether it is read.", Query(f"min by (source) (mailward_source_up{{{HOST}}})", "{{source}}"), says=YES_NO, steps=UP, size=(6, 4)),
        numbers(2, "State", "Whether the state can be saved.", Query(f"min(mailward_store_up{{{HOST}}})", "store"), says=YES_NO, size=(3, 4)),
        numbers(3, "Firewall", "Whether decisions reach the kernel.", Query(f"min(mailward_firewall_up{{{HOST}}})", "firewall"), says=YES_NO, size=(3, 4)),
        numbers(
            4, "Configuration", "Whether the latest configuration was taken; if not, the one before is in force.",
            Query(f"min(mailward_reload_success{{{HOST}}})", "reload"), says={"0": ("refused", RED), "1": ("taken", GREEN)}, size=(4, 4),
        ),
        numbers(
            5, "In force since", "When the configuration was last taken.",
            Query(f"max(mailward_reload_timestamp_seconds{{{HOST}}}) * 1000", "taken"), unit="dateTimeFromNow", size=(4, 4),
        ),
        numbers(6, "Release", "The release of each guard.", Query(f"count by (version) (mailward_build_info{{{HOST}}})", "{{version}}"), size=(4, 4), decimals=0),
        Row("Reading"),
        lines(7, "Lines per second", "By source and service.", Query(f"sum by (source, service) (rate(mailward_lines_total{{{SERVICE}}}[$__rate_interval]))", "{{source}} {{service}}"), unit="short", size=(8, 8)),
        lines(
            8, "Reading behind", "Seconds since everything written was last read.",
            Query(f"max by (source) (mailward_ingest_lag_seconds{{{HOST}}})", "{{source}}"), unit="s", steps=((None, GREEN), (2, YELLOW), (10, RED)), size=(8, 8),
        ),
        lines(9, "Lost per minute", "How often a source could not deliver something.", Query(rate("mailward_source_lost_total", "source"), "{{source}}"), steps=NONE_IS_WELL, size=(8, 8)),
        lines(10, "Lines per minute by parser", "Read, of no interest, or not understood.", Query(rate("mailward_parse_total", "parser, result"), "{{parser}} {{result}}"), size=(12, 8)),
        lines(
            11, "Share of failed logins not understood", "Lines that look like a failed login and that no parser could read, among the failed logins that were read: a format has changed.",
            Query(
                f"sum by (service) (rate(mailward_unparsed_total{{{SERVICE}}}[$__rate_interval]))"
                f" / clamp_min(sum by (service) (rate(mailward_unparsed_total{{{SERVICE}}}[$__rate_interval]))"
                f" + sum by (service) (rate(mailward_auth_failures_total{{{SERVICE}}}[$__rate_interval])), 1e-6)",
                "{{service}}",
            ),
            unit="percentunit", steps=((None, GREEN), (0.01, RED)), size=(12, 8),
        ),
        Row("Deciding and enforcing"),
        lines(
            12, "From the line to the decision", "The line's own time to the decision.",
            Query(quantile(0.5, "mailward_detection_seconds"), "half"), Query(quantile(0.99, "mailward_detection_seconds"), "99 of 100"), unit="s", size=(8, 8),
        ),
        lines(
            13, "From the decision to the kernel", "Until the kernel confirms.",
            Query(quantile(0.5, "mailward_enforcement_seconds"), "half"), Query(quantile(0.99, "mailward_enforcement_seconds"), "99 of 100"), unit="s", size=(8, 8),
        ),
        lines(14, "Gap", "Wanted minus enforced, by address family. 0 is as it should be.", Query(f"sum by (family) (mailward_enforcement_gap{{{HOST}}})", "{{family}}"), steps=NONE_IS_WELL, size=(8, 8), least=None),
        lines(15, "Drift found per minute", "What a look at the kernel found different, and put right.", Query(rate("mailward_ban_drift_total", "kind"), "{{kind}}"), steps=NONE_IS_WELL, size=(8, 8)),
        lines(16, "Put in by hand", "Bans in the kernel that nobody decided.", Query(f"sum by (family) (mailward_bans_foreign{{{HOST}}})", "{{family}}"), size=(8, 8)),
        lines(
            17, "A scrape", "How long the guard takes for its numbers.",
            Query('max by (instance) (scrape_duration_seconds{job="guard",instance=~"$host"})', "{{instance}}"), unit="s", size=(8, 8),
        ),
        Row("Memory"),
        lines(18, "Remembered", "Addresses, sessions and accounts.", Query(f"sum by (kind) (mailward_tracked{{{HOST}}})", "{{kind}}"), size=(12, 8)),
        lines(19, "Forgotten to make room, per minute", "At a limit: what is forgotten starts from nothing.", Query(rate("mailward_evicted_total", "kind"), "{{kind}}"), steps=NONE_IS_WELL, size=(12, 8)),
        Row("Fleet (only where there is one)"),
        numbers(20, "Server", "Whether the fleet's server is reached.", Query(f"min by (instance) (mailward_fleet_up{{{HOST}}})", "{{instance}}"), says=YES_NO, size=(4, 8)),
        numbers(21, "Nodes", "Guards that gave a sign of life.", Query(f"max(mailward_fleet_nodes{{{HOST}}})", "nodes"), size=(4, 8), decimals=0),
        lines(
            22, "Waiting and lost", "Events that the server does not have yet, and those that did not get through.",
            Query(f"sum by (instance) (mailward_fleet_pending{{{HOST}}})", "{{instance}} waiting"),
            Query(rate("mailward_fleet_lost_total", "instance"), "{{instance}} lost per minute"), size=(8, 8),
        ),
        lines(23, "Told by others per minute", "Taken, or passed over.", Query(rate("mailward_told_total", "kind, result"), "{{kind}} {{result}}"), size=(8, 8)),
    ],
    choices=(HOSTS, SERVICES),
)  # fmt: skip
