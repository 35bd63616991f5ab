"""Geography: bans by country.  Only with `[geo] database`; networks are a list in JSON (`mailward origins`)."""

from __future__ import annotations

from typing import Final

from exporters.dashboards._panels import HOST, HOSTS, Query, Screen, bars, grown, lines, numbers, rate

SCREEN: Final = Screen(
    "geography",
    "Mailward: geography",
    "Where bans come from, by country. Empty without `[geo] database`. Networks: `mailward origins`.",
    [
        numbers(1, "Countries", "Countries with at least one ban in force.", Query(f"count(sum by (country) (mailward_country_banned{{{HOST}}}) > 0)", "countries"), decimals=0, size=(6, 4)),
        numbers(2, "Bans in force", "Bans whose country was looked up.", Query(f"sum(mailward_country_banned{{{HOST}}})", "bans"), decimals=0, size=(6, 4)),
        numbers(
            3, "Without a country", "Share of the bans in force whose address the database does not know.",
            Query(f'(sum(mailward_country_banned{{{HOST},country="unknown"}}) or vector(0)) / clamp_min(sum(mailward_country_banned{{{HOST}}}), 1)', "unknown"),
            unit="percentunit", size=(6, 4),
        ),
        numbers(4, "Decided", "Bans decided in the time shown.", Query(grown("mailward_country_bans_total"), "bans"), decimals=0, size=(6, 4)),
        bars(5, "In force", "The twenty countries with the most bans in force.", Query(f"topk(20, sum by (country) (mailward_country_banned{{{HOST}}}) > 0)", "{{country}}"), size=(12, 12)),
        bars(6, "Decided", "The twenty countries with the most bans in the time shown.", Query(f"topk(20, {grown('mailward_country_bans_total', 'country')} > 0)", "{{country}}"), size=(12, 12)),
        lines(7, "Bans decided per minute", "The ten countries with the most bans at each moment.", Query(f"topk(10, {rate('mailward_country_bans_total', 'country')})", "{{country}}"), stacked=True, size=(24, 8)),
    ],
    choices=(HOSTS,),
)  # fmt: skip
