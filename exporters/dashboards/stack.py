"""Stack health: the mail servers, their certificates and names, and the machine they run on."""

from __future__ import annotations

from typing import Final

from exporters.dashboards._panels import (
    GREEN,
    ORANGE,
    RED,
    YES_NO,
    Choice,
    Query,
    Row,
    Screen,
    bars,
    lines,
    numbers,
)

_ALL: Final = 'instance=~"$target",job=~"$job"'


def _per_second(metric: str, by: str, job: str) -> str:
    return f'sum by ({by}) (rate({metric}{{job="{job}",instance=~"$target"}}[$__rate_interval]))'


def _of(metric: str, job: str) -> str:
    return f'{metric}{{job="{job}",instance=~"$target"}}'


# Not `$host` and `$service`: the links between the screens carry those, and there they mean guards and what they guard.
SCREEN: Final = Screen(
    "stack",
    "Mailward: stack health",
    "Is every part up, is the queue small, are certificates and names well, is there room.",
    [
        numbers(1, "Exporters", "Whether Prometheus reaches what it reads.", Query(f"min by (job) (up{{{_ALL}}})", "{{job}}"), says=YES_NO, size=(12, 6)),
        numbers(2, "Ports", "Whether a client gets through to each port, TLS and greeting included.", Query(_of("probe_success", "ports"), "{{instance}}"), says=YES_NO, size=(12, 6)),
        Row("Queue and mail"),
        lines(3, "Messages in the queue", "By Postfix' queue.", Query(f"sum by (queue) ({_of('mailward_stack_queue_messages', 'stack')})", "{{queue}}"), stacked=True, size=(6, 8)),
        lines(4, "Oldest message", "How long the oldest of each queue waits.", Query(f"max by (queue) ({_of('mailward_stack_queue_oldest_seconds', 'stack')})", "{{queue}}"), unit="s", steps=((None, GREEN), (3600, ORANGE), (86400, RED)), size=(6, 8)),
        lines(5, "Bytes in the queue", "By Postfix' queue.", Query(f"sum by (queue) ({_of('mailward_stack_queue_bytes', 'stack')})", "{{queue}}"), unit="bytes", stacked=True, size=(6, 8)),
        lines(6, "Postfix exporter: messages in the queue", "By showq, as the Postfix exporter sees it.", Query(f"sum by (queue) ({_of('postfix_showq_message_age_seconds_count', 'postfix')})", "{{queue}}"), size=(6, 8)),
        lines(7, "Rspamd per second", "What it does with messages.", Query(_per_second("rspamd_actions_total", "type", "rspamd"), "{{type}}"), stacked=True, size=(8, 8)),
        lines(8, "Rspamd: memory", "What it has allocated.", Query(_of("rspamd_allocated_bytes", "rspamd"), "{{instance}}"), unit="bytes", size=(8, 8)),
        lines(
            9, "Dovecot per second", "Logins, failed logins and deliveries by Dovecot's own statistics.",
            Query(_per_second("dovecot_auth_successes_total", "instance", "dovecot"), "logins"),
            Query(_per_second("dovecot_auth_failures_total", "instance", "dovecot"), "failed logins"),
            Query(_per_second("dovecot_mail_deliveries_total", "instance", "dovecot"), "deliveries"), size=(8, 8),
        ),
        lines(10, "IMAP commands per second", "What clients ask for, by command.", Query(_per_second("dovecot_imap_commands_total", "cmd_name", "dovecot"), "{{cmd_name}}"), size=(12, 8)),
        lines(
            11, "Time of an IMAP command", "Mean over each command.",
            Query(f"{_per_second('dovecot_imap_commands_duration_seconds_total', 'cmd_name', 'dovecot')} / clamp_min({_per_second('dovecot_imap_commands_total', 'cmd_name', 'dovecot')}, 1e-6)", "{{cmd_name}}"),
            unit="s", size=(12, 8),
        ),
        Row("Certificates and names"),
        bars(
            12, "Certificates: days left", "By port, as the stack exporter saw them.",
            Query(f"min by (port) ({_of('mailward_stack_certificate_expiry_timestamp_seconds', 'stack')} - time()) / 86400", "{{port}}"),
            steps=((None, RED), (14, ORANGE), (30, GREEN)),
        ),
        bars(
            13, "Certificates from outside: days left", "By port, as the prober saw them.",
            Query(f"min by (instance) ({_of('probe_ssl_earliest_cert_expiry', 'ports')} - time()) / 86400", "{{instance}}"),
            steps=((None, RED), (14, ORANGE), (30, GREEN)),
        ),
        numbers(
            14, "Trusted", "Whether the handshake works, and chain and name verify.",
            Query(f"min by (port) ({_of('mailward_stack_certificate_trusted', 'stack')} * {_of('mailward_stack_certificate_up', 'stack')})", "{{port}}"), says={"0": ("no", RED), "1": ("yes", GREEN)}, size=(8, 8),
        ),
        numbers(15, "MTA-STS", "Whether record, policy, MX and certificate agree.", Query(f"min by (domain, check) ({_of('mailward_stack_mta_sts_ok', 'stack')})", "{{domain}} {{check}}"), says={"0": ("wrong", RED), "1": ("well", GREEN)}, size=(12, 6)),
        numbers(16, "DNS", "Whether each record is published as it should be.", Query(f"min by (domain, record) ({_of('mailward_stack_dns_ok', 'stack')})", "{{domain}} {{record}}"), says={"0": ("wrong", RED), "1": ("well", GREEN)}, size=(12, 6)),
        Row("Scanners"),
        numbers(17, "Scanners", "Whether they answer; freshclam: whether its last check worked.", Query(f"min by (service) ({_of('mailward_stack_service_up', 'stack')})", "{{service}}"), says=YES_NO, size=(8, 6)),
        numbers(18, "Signatures", "Age of ClamAV's signatures.", Query(f"time() - max({_of('mailward_stack_clamav_signatures_timestamp_seconds', 'stack')})", "age"), unit="s", steps=((None, GREEN), (86400, ORANGE), (172800, RED)), size=(8, 6)),
        lines(
            19, "Checks of the stack exporter", "How long each look took, and how long ago it was; nothing before the first.",
            Query(f"max by (check) ({_of('mailward_stack_check_seconds', 'stack')})", "{{check}} took"), Query(f"time() - (max by (check) ({_of('mailward_stack_check_timestamp_seconds', 'stack')}) > 0)", "{{check}} ago"), unit="s", size=(8, 6),
        ),
        Row("Databases and web"),
        numbers(
            20, "Answering", "What the exporters see of the servers behind them.",
            Query(f"min({_of('redis_up', 'redis')})", "redis"), Query(f"min({_of('mysql_up', 'mariadb')})", "mariadb"), Query(f"min({_of('nginx_up', 'nginx')})", "nginx"), Query(f"min({_of('postfix_up', 'postfix')})", "postfix queue"),
            says=YES_NO, size=(6, 8),
        ),
        lines(
            21, "MariaDB", "Connections, as a share of what is allowed.",
            Query(f"{_of('mysql_global_status_threads_connected', 'mariadb')} / {_of('mysql_global_variables_max_connections', 'mariadb')}", "{{instance}}"), unit="percentunit", steps=((None, GREEN), (0.8, RED)), size=(6, 8),
        ),
        lines(
            22, "Redis", "Memory, and keys pushed out for want of it.",
            Query(_of("redis_memory_used_bytes", "redis"), "memory"), Query(_per_second("redis_evicted_keys_total", "instance", "redis"), "evicted per second"), unit="bytes", size=(6, 8),
        ),
        lines(23, "Requests per second", "Web, MariaDB and Redis.", Query(_per_second("nginx_http_requests_total", "job", "nginx"), "nginx"), Query(_per_second("mysql_global_status_queries", "job", "mariadb"), "mariadb"), Query(_per_second("redis_commands_processed_total", "job", "redis"), "redis"), size=(6, 8)),
        Row("The machine"),
        lines(24, "Processors", "Share that works.", Query('1 - avg by (instance) (rate(node_cpu_seconds_total{job="node",instance=~"$target",mode="idle"}[$__rate_interval]))', "{{instance}}"), unit="percentunit", steps=((None, GREEN), (0.9, RED)), size=(6, 8)),
        lines(25, "Memory", "Share that is taken.", Query(f"1 - {_of('node_memory_MemAvailable_bytes', 'node')} / {_of('node_memory_MemTotal_bytes', 'node')}", "{{instance}}"), unit="percentunit", steps=((None, GREEN), (0.9, RED)), size=(6, 8)),
        lines(
            26, "Disks", "Share that is taken. A full disk stops mail.",
            Query('1 - node_filesystem_avail_bytes{job="node",instance=~"$target",fstype!~"tmpfs|overlay|squashfs"} / node_filesystem_size_bytes{job="node",instance=~"$target",fstype!~"tmpfs|overlay|squashfs"}', "{{mountpoint}}"),
            unit="percentunit", steps=((None, GREEN), (0.8, ORANGE), (0.9, RED)), size=(6, 8),
        ),
        lines(27, "Load", "Processes that run or wait, over five minutes.", Query(_of("node_load5", "node"), "{{instance}}"), size=(6, 8)),
        Row("Prometheus"),
        lines(28, "Series", "What Prometheus keeps in memory.", Query(_of("prometheus_tsdb_head_series", "prometheus"), "{{instance}}"), size=(12, 6)),
        lines(29, "Scrape", "How long each part takes to answer.", Query(f"max by (job) (scrape_duration_seconds{{{_ALL}}})", "{{job}}"), unit="s", size=(12, 6)),
    ],
    choices=(
        Choice("job", "Service", "Prometheus' jobs", "label_values(up, job)"),
        Choice("target", "Host", "What Prometheus reads, as host:port", 'label_values(up{job=~"$job"}, instance)'),
    ),
)  # fmt: skip
