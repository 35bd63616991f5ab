"""Guard overview: one screen that says whether there is an attack, and whether what was decided is in the kernel."""

from __future__ import annotations

from typing import Final

from exporters.dashboards._panels import (
    BLUE,
    CALM,
    GREEN,
    HOST,
    NONE_IS_WELL,
    ORANGE,
    RED,
    SERVICE,
    YELLOW,
    Query,
    Screen,
    bars,
    grown,
    lines,
    numbers,
    quantile,
    rate,
)

FAILED: Final = f"{rate('mailward_auth_failures_total', chosen=SERVICE)} - {rate('mailward_auth_revoked_total', chosen=SERVICE)}"
_BANNED: Final = f'sum(increase(mailward_bans_total{{{HOST},rule=~"brute_force|bad_neighbourhood"}}[5m]))'
_TRIED: Final = f"sum(increase(mailward_auth_failures_total{{{HOST}}}[5m])) - sum(increase(mailward_auth_revoked_total{{{HOST}}}[5m]))"

SCREEN: Final = Screen(
    "overview",
    "Mailward: guard overview",
    "Is somebody guessing passwords, and does the kernel hold every ban that was decided?",
    [
        numbers(
            1, "Under attack?",
            "The last five minutes. Under attack: a rule banned somebody. Guessing: more than 50 failed logins, and nobody banned.",
            Query(f"2 * ({_BANNED} > bool 0) + ({_TRIED} > bool 50)", "state"),
            says={"0": ("quiet", GREEN), "1": ("guessing", ORANGE), "2": ("under attack", RED), "3": ("under attack", RED)},
            size=(6, 4),
        ),
        numbers(
            2, "Detected", "Failed logins in the time shown, each once: without those that a success explained.",
            Query(f"{grown('mailward_auth_failures_total')} - {grown('mailward_auth_revoked_total')}", "failed logins"),
            decimals=0, size=(4, 4), steps=((None, BLUE),),
        ),
        numbers(
            3, "Decided", "Bans that the rules and the administrator want at this moment.",
            Query(f"sum(mailward_bans_wanted{{{HOST}}})", "bans wanted"), decimals=0, size=(4, 4), steps=((None, BLUE),),
        ),
        numbers(
            4, "Enforced", "Of these, the bans that the kernel holds: without those that were put in by hand.",
            Query(f"sum(mailward_bans_enforced{{{HOST}}}) - sum(mailward_bans_foreign{{{HOST}}})", "bans in the kernel"),
            decimals=0, size=(4, 4), steps=((None, BLUE),),
        ),
        numbers(
            5, "Gap", "Bans wanted minus enforced. 0 is as it should be; below 0 the kernel holds bans that have ended.",
            Query(f"sum(mailward_enforcement_gap{{{HOST}}})", "gap"), decimals=0, size=(3, 4),
            steps=((None, ORANGE), (0, GREEN), (1, RED)),
        ),
        numbers(
            6, "Reading behind", "How long what is written waits until it is read, at worst.",
            Query(f"max(mailward_ingest_lag_seconds{{{HOST}}})", "lag"), unit="s", size=(3, 4),
            steps=((None, GREEN), (2, YELLOW), (10, RED)),
        ),
        lines(
            7, "Failed logins and bans per minute", "Detected and decided, side by side.",
            Query(FAILED, "failed logins"), Query(rate("mailward_bans_total"), "bans"), size=(12, 7),
        ),
        lines(
            8, "Wanted and enforced", "Two lines that lie on each other. Where they part, somebody who should be banned is not.",
            Query(f"sum(mailward_bans_wanted{{{HOST}}})", "wanted"),
            Query(f"sum(mailward_bans_enforced{{{HOST}}}) - sum(mailward_bans_foreign{{{HOST}}})", "enforced"),
            size=(12, 7),
        ),
        bars(
            9, "Attempts per session", "How many passwords one connection tried, by sessions in the time shown. One IMAP session may hide twenty.",
            Query(f"sum by (le) (increase(mailward_session_attempts_bucket{{{SERVICE}}}[$__range]))", "{{le}}"),
            size=(6, 8), buckets=True,
        ),
        bars(
            10, "Top protocols", "Where the failed logins of the time shown came in.",
            Query(f"topk(8, {grown('mailward_auth_failures_total', 'service, protocol', SERVICE)} > 0)", "{{service}} {{protocol}}"),
            size=(6, 8),
        ),
        lines(
            11, "Dropped packets per second", "What the bans keep out, by the kernel's own count.",
            Query(f"sum by (family) (rate(mailward_dropped_packets_total{{{HOST}}}[$__rate_interval]))", "{{family}}"),
            unit="pps", size=(6, 8), steps=CALM,
        ),
        numbers(
            12, "Login after failures", "Accounts that let somebody in who had guessed before, in the time shown. Look at each.",
            Query(f'sum(increase(mailward_findings_total{{{HOST},rule="login_after_failures"}}[$__range]))', "findings"),
            decimals=0, size=(3, 4), at=(18, 11), steps=NONE_IS_WELL,
        ),
        numbers(
            13, "Detection", "From the line's own time to the decision, 95 of 100.",
            Query(quantile(0.95, "mailward_detection_seconds"), "p95"), unit="s", size=(3, 4), at=(21, 11), steps=((None, GREEN), (2, YELLOW), (10, RED)),
        ),
        numbers(
            14, "Firewall", "Whether decisions reach the kernel.",
            Query(f"min(mailward_firewall_up{{{HOST}}})", "firewall"), size=(3, 4), at=(18, 15),
            says={"0": ("down", RED), "1": ("up", GREEN)},
        ),
        numbers(
            15, "Sources", "Whether every log is read.",
            Query(f"min(mailward_source_up{{{HOST}}})", "sources"), size=(3, 4), at=(21, 15),
            says={"0": ("down", RED), "1": ("up", GREEN)},
        ),
    ],
)  # fmt: skip
