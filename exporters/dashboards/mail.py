"""Mail flow: what came in, what went out, what was refused, how long it took, and who sends much."""

from __future__ import annotations

from typing import Final

from exporters.dashboards._panels import (
    GREEN,
    HOST,
    HOSTS,
    NONE_IS_WELL,
    ORANGE,
    RED,
    Choice,
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

_TLS: Final = 'instance=~"$host",service=~"$service"'
_SENT: Final = f'{HOST},result="sent"'

SCREEN: Final = Screen(
    "mail",
    "Mailward: mail flow",
    "Messages in and out, rejections, delays, TLS, LMTP, SOGo and accounts that send, out of the log lines that the guard reads.",
    [
        numbers(1, "Received", "Messages taken into the queue in the time shown.", Query(grown("mailward_mail_received_total"), "received"), decimals=0),
        numbers(2, "Delivered", "Recipients served in the time shown.", Query(grown("mailward_mail_deliveries_total", chosen=_SENT), "sent"), decimals=0),
        numbers(
            3, "Bounced or expired", "Recipients who will not get their mail.",
            Query(grown("mailward_mail_deliveries_total", chosen=f'{HOST},result=~"bounced|expired"'), "failed"), decimals=0, steps=((None, GREEN), (1, ORANGE)),
        ),
        numbers(
            4, "Deferred", "Share of delivery attempts that have to be repeated, in the time shown.",
            Query(f'{grown("mailward_mail_deliveries_total", chosen=HOST + ",result=" + chr(34) + "deferred" + chr(34))} / clamp_min({grown("mailward_mail_deliveries_total")}, 1)', "deferred"),
            unit="percentunit", steps=((None, GREEN), (0.1, ORANGE), (0.5, RED)),
        ),
        numbers(5, "Rejected", "What was refused at the door, in the time shown.", Query(grown("mailward_mail_rejected_total"), "rejected"), decimals=0),
        numbers(
            6, "Much is sent", "Accounts with more than 100 messages in the last hour: a newsletter, or a stolen password (`mailward top`).",
            Query(f'sum(mailward_sending_accounts{{{HOST},above="100"}})', "accounts"), decimals=0, steps=NONE_IS_WELL,
        ),
        Row("In and out"),
        lines(7, "Received per minute", "Messages taken into the queue, by protocol.", Query(rate("mailward_mail_received_total", "protocol"), "{{protocol}}"), stacked=True, size=(8, 8)),
        lines(8, "Delivery attempts per minute", "One recipient each, by transport and result.", Query(rate("mailward_mail_deliveries_total", "transport, result"), "{{transport}} {{result}}"), size=(8, 8)),
        lines(9, "Rejected per minute", "What was refused at the door, by what was wrong with it.", Query(rate("mailward_mail_rejected_total", "class"), "{{class}}"), stacked=True, size=(8, 8)),
        lines(10, "Postscreen per minute", "What it thinks of those who knock.", Query(rate("mailward_postscreen_verdicts_total", "verdict"), "{{verdict}}"), stacked=True, size=(8, 8)),
        lines(11, "LMTP deliveries per minute", "By Dovecot's and Sieve's own lines.", Query(rate("mailward_lmtp_deliveries_total", "result"), "{{result}}"), size=(8, 8)),
        lines(12, "Logins per minute", "IMAP, POP3, SMTP and web logins that went through.", Query(rate("mailward_auth_successes_total", "service, protocol", _TLS), "{{service}} {{protocol}}"), size=(8, 8)),
        Row("How long it takes"),
        lines(
            13, "Delivery delay", "Postfix' delay= of deliveries that went through, by transport.",
            Query(quantile(0.5, "mailward_mail_delivery_delay_seconds", "transport"), "{{transport}} half"),
            Query(quantile(0.95, "mailward_mail_delivery_delay_seconds", "transport"), "{{transport}} 95 of 100"), unit="s", size=(8, 8),
        ),
        lines(
            14, "Where the delay is", "Seconds of delay that a second brings, by stage: what grows is what is slow.",
            Query(f"sum by (stage) (rate(mailward_mail_delay_seconds_total{{{HOST}}}[$__rate_interval]))", "{{stage}}"), stacked=True, size=(8, 8),
        ),
        lines(
            15, "Life in the queue", "From taken in to removed.",
            Query(quantile(0.5, "mailward_mail_queue_seconds"), "half"), Query(quantile(0.95, "mailward_mail_queue_seconds"), "95 of 100"), unit="s", size=(8, 8),
        ),
        Row("TLS and SOGo"),
        bars(16, "TLS versions", "Sessions of the time shown.", Query(f"{grown('mailward_tls_sessions_total', 'service, direction, version', _TLS)}", "{{service}} {{direction}} {{version}}")),
        lines(17, "SOGo requests per minute", "By protocol and kind of answer.", Query(rate("mailward_sogo_requests_total", "protocol, status"), "{{protocol}} {{status}}"), size=(8, 8)),
        lines(
            18, "SOGo: answer time and errors", "95 of 100 requests, and lines that tell an error.",
            Query(quantile(0.95, "mailward_sogo_request_seconds", "protocol"), "{{protocol}} 95 of 100"), Query(rate("mailward_sogo_errors_total"), "errors per minute"), size=(8, 8),
        ),
        Row("Accounts that send (last hour; names: `mailward top`)"),
        lines(19, "Messages", "Accounts with more than so many messages.", Query(f"sum by (above) (mailward_sending_accounts{{{HOST}}})", "more than {{above}}"), size=(6, 8)),
        lines(20, "Recipients", "Accounts with more than so many distinct recipients.", Query(f"sum by (above) (mailward_sending_accounts_recipients{{{HOST}}})", "more than {{above}}"), size=(6, 8)),
        lines(21, "Networks", "Accounts used from more than so many networks.", Query(f"sum by (above) (mailward_sending_accounts_networks{{{HOST}}})", "more than {{above}}"), size=(6, 8)),
        lines(22, "Countries", "Accounts used from more than so many countries; only with `[geo] database`.", Query(f"sum by (above) (mailward_sending_accounts_countries{{{HOST}}})", "more than {{above}}"), size=(6, 8)),
        lines(
            23, "The busiest account", "The highest of any account, each by itself.",
            Query(f"max(mailward_sending_busiest_messages{{{HOST}}})", "messages"), Query(f"max(mailward_sending_busiest_recipients{{{HOST}}})", "recipients"),
            Query(f"max(mailward_sending_busiest_networks{{{HOST}}})", "networks"),
        ),
        lines(24, "Forgotten to make room, per minute", "At a limit these numbers are too low.", Query(rate("mailward_traffic_evicted_total", "kind"), "{{kind}}"), steps=NONE_IS_WELL),
    ],
    choices=(
        HOSTS,
        Choice("service", "Service", "The servers that clients log in to", f"label_values(mailward_auth_successes_total{{{HOST}}}, service)"),
    ),
)  # fmt: skip
