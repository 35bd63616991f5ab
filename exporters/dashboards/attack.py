"""Attack detail: who is guessed at, where, how, and what became of it."""

from __future__ import annotations

from typing import Final

from exporters.dashboards._panels import (
    HOST,
    NONE_IS_WELL,
    SERVICE,
    Query,
    Row,
    Screen,
    bars,
    grown,
    lines,
    numbers,
    quantile,
    rate,
)

SCREEN: Final = Screen(
    "attack",
    "Mailward: attack detail",
    "Failed logins by service, protocol and reason; sessions; findings, bans and what the kernel dropped.",
    [
        Row("Failed logins"),
        lines(
            1, "Failed logins per minute, by service", "Every rejected credential, before a success or a session's end takes some back.",
            Query(rate("mailward_auth_failures_total", "service", SERVICE), "{{service}}"), stacked=True,
        ),
        lines(
            2, "Failed logins per minute, by protocol", "The same, by the protocol that the client spoke.",
            Query(rate("mailward_auth_failures_total", "protocol", SERVICE), "{{protocol}}"), stacked=True,
        ),
        bars(
            3, "Reasons", "Why the servers rejected, in the time shown.",
            Query(f"{grown('mailward_auth_failures_total', 'reason', SERVICE)} > 0", "{{reason}}"),
        ),
        lines(
            4, "Taken back per minute", "Failures that a success or the session's end explained: a person's mistyped password, not a guess.",
            Query(rate("mailward_auth_revoked_total", "service", SERVICE), "{{service}}"), size=(8, 8),
        ),
        lines(
            5, "Successful logins per minute", "Logins that went through; a fall here during an attack means that people are kept out.",
            Query(rate("mailward_auth_successes_total", "service, protocol", SERVICE), "{{service}} {{protocol}}"), size=(8, 8),
        ),
        Row("Sessions"),
        bars(
            6, "Attempts per session", "Sessions of the time shown by the number of passwords they tried.",
            Query(f"sum by (le) (increase(mailward_session_attempts_bucket{{{SERVICE}}}[$__range]))", "{{le}}"), buckets=True,
        ),
        lines(
            7, "Attempts per session, on average and at the top", "Mean, and the count that 95 of 100 sessions stay under.",
            Query(
                f"sum by (service) (rate(mailward_session_attempts_sum{{{SERVICE}}}[$__rate_interval]))"
                f" / sum by (service) (rate(mailward_session_attempts_count{{{SERVICE}}}[$__rate_interval]))",
                "{{service}} mean",
            ),
            Query(quantile(0.95, "mailward_session_attempts", "service", SERVICE), "{{service}} p95"), size=(8, 8),
        ),
        lines(
            8, "The same attempt in other lines", "Second and third witnesses of an attempt that was counted already: what a plain line count would add.",
            Query(rate("mailward_witness_suppressed_total", "service", SERVICE), "{{service}}"), size=(8, 8),
        ),
        Row("Accounts guessed at"),
        lines(
            18, "Accounts under attack", "Accounts for which logins failed from more than so many networks (/24, /48) within an hour; mailward top names them.",
            Query(f"sum by (above) (mailward_attacked_accounts{{{HOST}}})", "more than {{above}}"), size=(12, 8),
        ),
        lines(
            19, "Networks against one account", "The most networks that failed to log in to one account within an hour: each may stay below every ban.",
            Query(f"max by (instance) (mailward_attacked_busiest_networks{{{HOST}}})", "{{instance}}"), size=(12, 8),
        ),
        Row("Findings and bans"),
        lines(
            9, "Findings per minute", "What the rules found.", Query(rate("mailward_findings_total", "rule"), "{{rule}}"), size=(8, 8),
        ),
        lines(
            10, "Bans decided per minute", "By rule; manual and deny are the administrator's.",
            Query(rate("mailward_bans_total", "rule, family"), "{{rule}} {{family}}"), stacked=True, size=(8, 8),
        ),
        lines(
            11, "Bans ended per minute", "Why a ban ended: its time was over, or somebody lifted it.", Query(rate("mailward_unbans_total", "cause"), "{{cause}}"), size=(8, 8),
        ),
        lines(
            12, "Bans in force", "What is wanted, by address family.",
            Query(f"sum by (family) (mailward_bans_wanted{{{HOST}}})", "{{family}}"), stacked=True, size=(8, 8),
        ),
        lines(
            13, "Dropped packets per second", "The kernel's own count.",
            Query(f"sum by (family) (rate(mailward_dropped_packets_total{{{HOST}}}[$__rate_interval]))", "{{family}}"),
            unit="pps", size=(8, 8),
        ),
        lines(
            14, "Dropped bytes per second", "The kernel's own count.",
            Query(f"sum by (family) (rate(mailward_dropped_bytes_total{{{HOST}}}[$__rate_interval]))", "{{family}}"),
            unit="Bps", size=(8, 8),
        ),
        Row("Not held against anybody"),
        lines(
            15, "Seen and not held against a client, per minute", "Trusted, own and allowed addresses; attempts that nobody judged; lines too old.",
            Query(rate("mailward_ignored_total", "reason"), "{{reason}}"), size=(8, 8),
        ),
        lines(
            16, "Attempts that nobody judged, per minute", "The password database was at fault: these are no guesses.",
            Query(rate("mailward_auth_unjudged_total", "service", SERVICE), "{{service}}"), size=(8, 8), steps=NONE_IS_WELL,
        ),
        numbers(
            17, "Remembered", "Addresses, sessions and accounts that are watched at this moment.",
            Query(f"sum by (kind) (mailward_tracked{{{HOST}}})", "{{kind}}"), size=(8, 8), decimals=0,
        ),
    ],
)  # fmt: skip
