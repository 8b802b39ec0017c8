"""The Grafana dashboards, described once; ``make dashboards`` writes them into ``config/grafana/dashboards``.

What is of the whole store is told by every worker alike and taken as max(); what workers count themselves is summed.
"""

from typing import Any, Final

from tests.monitoring.grafana import Dashboard, Panel, Row

W: Final = 'instance=~"$instance"'
"""The workers chosen at the top of the dashboard."""


def rate(metric: str, by: str = "", more: str = "") -> str:
    grouped = f"sum by ({by}) " if by else "sum"
    matchers = f"{W}, {more}" if more else W
    return f"{grouped}(rate({metric}{{{matchers}}}[$__rate_interval]))"


def quantile(share: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({labels}) (rate({metric}_bucket{{{W}}}[$__rate_interval])))"


def whole(metric: str, by: str = "") -> str:
    return f"max by ({by}) ({metric}{{{W}}})" if by else f"max({metric}{{{W}}})"


def total(metric: str, by: str = "") -> str:
    return f"sum by ({by}) ({metric}{{{W}}})" if by else f"sum({metric}{{{W}}})"


def percentiles(metric: str) -> tuple[tuple[str, str], ...]:
    return tuple((quantile(share, metric), f"p{round(share * 100)}") for share in (0.5, 0.95, 0.99))


def stat(title: str, query: str, unit: str = "short", **more: Any) -> Panel:
    return Panel(title, ((query, ""),), unit, width=4, kind="stat", **more)


SLOW: Final = f"""1 - {rate("occ_request_seconds_bucket", more='le="0.05"')} / {rate("occ_request_seconds_count")}"""
NOTICES_RATE: Final = f"rate(occ_notices_total{{{W}}}[$__rate_interval])"
ANSWERS: Final = "occ_service_answers_total"
REFUSED: Final = 'result!~"2...|4011"'
FAULTS: Final = 'result!~"2...|401[012]|5002|5030"'
MONEY: Final = f"60 * {rate('occ_money_debited_total', 'currency')}"

OVERVIEW: Final = Dashboard(
    "occ-overview",
    "OCC: overview",
    "Traffic, latency, answers, money.",
    (
        Row(
            "Now",
            (
                stat("Requests", rate("occ_requests_total"), "reqps"),
                stat("Latency p99", quantile(0.99, "occ_request_seconds"), "s", red_from=0.05),
                stat(
                    "Answers that tell of faults",
                    f"{rate('occ_requests_total', more=FAULTS)} / {rate('occ_requests_total')} or vector(0)",
                    "percentunit",
                    red_from=0.01,
                ),
                Panel("Money per minute", ((MONEY, "{{currency}}"),), "none", 4, "stat"),
                stat("Open sessions", whole("occ_open_sessions")),
                stat("Workers", 'sum(up{job="occ", process="worker"})', red_below=1),
            ),
        ),
        Row(
            "Traffic",
            (
                Panel("Requests by type", ((rate("occ_requests_total", "type"), "{{type}}"),), "reqps", stacked=True),
                Panel(
                    "Answers by Result-Code",
                    ((rate("occ_requests_total", "result"), "{{result}}"),),
                    "reqps",
                    stacked=True,
                ),
                Panel(
                    "Latency",
                    percentiles("occ_request_seconds"),
                    "s",
                    description="From a request's last octet to its answer; the objective is 50 ms for 99.5 %.",
                ),
                Panel("Latency p99 by type", ((quantile(0.99, "occ_request_seconds", "type"), "{{type}}"),), "s"),
                Panel(
                    "Slower than 50 ms",
                    (
                        (
                            SLOW,
                            "share",
                        ),
                    ),
                    "percentunit",
                ),
                Panel(
                    "Requests under way",
                    (
                        (total("occ_requests_in_flight", "instance"), "{{instance}}"),
                        (total("occ_requests_waiting", "instance"), "waiting, {{instance}}"),
                        (rate("occ_requests_rejected_total", "reason"), "turned away/s, {{reason}}"),
                    ),
                ),
            ),
        ),
        Row(
            "Money and processes",
            (
                Panel(
                    "Money per minute",
                    (
                        (MONEY, "debited, {{currency}}"),
                        (f"60 * {rate('occ_money_leaked_total', 'currency')}", "not covered, {{currency}}"),
                        (f"60 * {rate('occ_money_refunded_total', 'currency')}", "refunded, {{currency}}"),
                    ),
                    "none",
                ),
                Panel(
                    "CPU of the workers",
                    ((f'rate(process_cpu_seconds_total{{{W}, job="occ"}}[$__rate_interval])', "{{instance}}"),),
                    "percentunit",
                ),
                Panel(
                    "Memory of the workers",
                    ((f'process_resident_memory_bytes{{{W}, job="occ"}}', "{{instance}}"),),
                    "bytes",
                ),
            ),
        ),
    ),
)

PEERS: Final = Dashboard(
    "occ-peers",
    "OCC: peers",
    "Diameter peers: connections, messages, and what the server asks of them.",
    (
        Row(
            "Connections",
            (
                Panel("Peers by state", ((total("occ_peers", "state"), "{{state}}"),), stacked=True, width=12),
                Panel(
                    "Connected",
                    ((f"max by (peer) (occ_peer_up{{{W}}})", "{{peer}}"),),
                    "short",
                    12,
                    "state-timeline",
                    "1: open on some worker; 0: not.",
                ),
            ),
        ),
        Row(
            "Messages",
            (
                Panel(
                    "Requests of peers",
                    ((rate("occ_peer_messages_total", "peer", 'message="requests-received"'), "{{peer}}"),),
                    "reqps",
                ),
                Panel(
                    "Answers to peers",
                    ((rate("occ_peer_messages_total", "peer", 'message="answers-sent"'), "{{peer}}"),),
                    "reqps",
                ),
                Panel(
                    "Errors of the base protocol",
                    ((rate("occ_peer_messages_total", "peer", 'message="errors-sent"'), "{{peer}}"),),
                    "reqps",
                ),
                Panel(
                    "Octets", ((rate("occ_peer_octets_total", "peer, direction"), "{{peer}} {{direction}}"),), "Bps", 12
                ),
                Panel(
                    "Requests of the server",
                    ((rate("occ_peer_messages_total", "peer", 'message="requests-sent"'), "{{peer}}"),),
                    "reqps",
                    12,
                ),
            ),
        ),
        Row(
            "Re-Auth and Abort-Session",
            (
                Panel(
                    "What came of them",
                    ((rate("occ_server_requests_total", "command, result"), "{{command}} {{result}}"),),
                    "reqps",
                ),
                Panel(
                    "Repeats, and promises not kept",
                    (
                        (rate("occ_server_request_retries_total"), "sent once more"),
                        (rate("occ_server_requests_not_kept_total"), "not kept"),
                        (rate("occ_server_requests_awaited_total"), "spared"),
                    ),
                    "reqps",
                ),
                Panel("From change to request", percentiles("occ_policy_push_seconds"), "s"),
            ),
        ),
    ),
)

BALANCES: Final = Dashboard(
    "occ-balances",
    "OCC: balances and policies",
    "Money, reservations, supervision, and what policies did.",
    (
        Row(
            "Balances",
            (
                Panel(
                    "Money per minute",
                    (
                        (MONEY, "debited, {{currency}}"),
                        (f"60 * {rate('occ_money_leaked_total', 'currency')}", "not covered, {{currency}}"),
                    ),
                    "none",
                ),
                Panel(
                    "Sessions and reservations",
                    ((whole("occ_open_sessions"), "sessions"), (whole("occ_open_reservations"), "reservations")),
                ),
                Panel(
                    "Supervision",
                    (
                        (whole("occ_supervision_overdue_accounts"), "accounts overdue"),
                        (rate("occ_expired_sessions_total"), "sessions ended/s"),
                        (rate("occ_late_terminations_total"), "late reports/s"),
                    ),
                ),
                Panel(
                    "Wait for supervision", ((whole("occ_supervision_lag_seconds"), "first account that is due"),), "s"
                ),
                Panel(
                    "Repeats and disbelief",
                    (
                        (rate("occ_replayed_answers_total"), "repeats answered"),
                        (rate("occ_disbelieved_reports_total"), "reports not believed"),
                    ),
                    "reqps",
                ),
                Panel("Charging data records that wait", ((whole("occ_outbox_entries"), "commits"),)),
            ),
        ),
        Row(
            "Policies",
            (
                Panel(
                    "Levels",
                    ((rate("occ_policy_transitions_total", "level, change"), "{{level}} {{change}}"),),
                    "ops",
                    stacked=True,
                ),
                Panel("Actions", ((rate("occ_policy_actions_total", "action"), "{{action}}"),), "ops"),
                Panel(
                    "Pushes", ((rate("occ_policy_pushes_total", "command, result"), "{{command}} {{result}}"),), "reqps"
                ),
                Panel("From change to acting on it", percentiles("occ_policy_transition_lag_seconds"), "s"),
                Panel(
                    "Under way, and failures",
                    (
                        (total("occ_policy_transitions_under_way"), "under way"),
                        (rate("occ_policy_failures_total"), "failures/s"),
                    ),
                ),
                Panel(
                    "Rules and catalogue in force",
                    (
                        (f"count by (edition) (occ_policies_info{{{W}}})", "policies {{edition}}"),
                        (f"count by (edition) (occ_catalogue_info{{{W}}})", "catalogue {{edition}}"),
                    ),
                    description="More than one line of a kind: workers differ.",
                ),
            ),
        ),
    ),
)

AWAY: Final = Row(
    "Without a store",
    (
        stat("Workers that grant by themselves", total("occ_away_granting"), red_from=1),
        stat("Requests to be settled", total("occ_away_entries_waiting")),
        Panel("Grants", ((rate("occ_away_grants_total", "service"), "{{service}}"),), "ops", 8),
        Panel("Refused", ((rate("occ_away_refused_total", "reason"), "{{reason}}"),), "ops", 8),
        Panel("Units granted", ((rate("occ_away_granted_units_total", "service"), "{{service}}"),), width=6),
        Panel("Settled", ((rate("occ_away_settled_total", "result"), "{{result}}"),), "ops", 6),
        Panel("Leaked per minute", ((f"60 * {rate('occ_away_leaked_total', 'currency')}", "{{currency}}"),), "none", 6),
        Panel("Size of the journals", ((total("occ_away_journal_bytes", "instance"), "{{instance}}"),), "bytes", 6),
    ),
)

STORE: Final = Dashboard(
    "occ-store",
    "OCC: store",
    "Redis, commits, outbox and disks.",
    (
        Row(
            "Now",
            (
                stat("Workers with Redis", total("occ_store_up"), red_below=1),
                stat("Commit p99", quantile(0.99, "occ_store_round_trip_seconds"), "s", red_from=0.05),
                stat("Outbox: oldest", whole("occ_outbox_oldest_seconds"), "s", red_from=120),
                stat("Written to disk", f"min(occ_redis_writes_to_disk{{{W}}})", "bool_yes_no", red_below=1),
                stat("Replicas", f"min(occ_redis_replicas{{{W}}})"),
                stat(
                    "Least disk free",
                    f"min(occ_disk_free_bytes{{{W}}} / occ_disk_size_bytes{{{W}}})",
                    "percentunit",
                    red_below=0.05,
                ),
            ),
        ),
        Row(
            "Commits",
            (
                Panel("Commit and back", percentiles("occ_store_round_trip_seconds"), "s"),
                Panel(
                    "Commits, operations, look-ups",
                    (
                        (rate("occ_store_commits_total"), "commits"),
                        (rate("occ_store_plans_total"), "operations"),
                        (rate("occ_store_reads_total"), "look-ups"),
                    ),
                    "ops",
                ),
                Panel(
                    "Operations per commit",
                    ((f"{rate('occ_store_plans_total')} / {rate('occ_store_commits_total')}", "operations"),),
                ),
                Panel(
                    "Version conflicts",
                    (
                        (
                            f"{rate('occ_store_version_conflicts_total')} / {rate('occ_store_plans_total')}",
                            "share decided again",
                        ),
                    ),
                    "percentunit",
                ),
                Panel(
                    "Failures and reconnects",
                    (
                        (rate("occ_store_failures_total"), "operations failed/s"),
                        (f"sum(increase(occ_store_reconnects_total{{{W}}}[$__rate_interval]))", "reconnects"),
                    ),
                ),
                Panel(
                    "Outbox",
                    (
                        (whole("occ_outbox_entries"), "commits that wait"),
                        (whole("occ_outbox_oldest_seconds"), "oldest, s"),
                    ),
                ),
            ),
        ),
        Row(
            "Redis",
            (
                Panel(
                    "CPU",
                    ((f"max(rate(occ_redis_cpu_seconds_total{{{W}}}[$__rate_interval]))", "cores"),),
                    "percentunit",
                    6,
                ),
                Panel(
                    "Commands",
                    ((f"max(rate(occ_redis_commands_total{{{W}}}[$__rate_interval]))", "commands"),),
                    "ops",
                    6,
                ),
                Panel(
                    "Memory",
                    (
                        (whole("occ_redis_memory_bytes"), "used"),
                        (whole("occ_redis_memory_limit_bytes"), "limit (0: none)"),
                    ),
                    "bytes",
                    6,
                ),
                Panel(
                    "Waits for the disk",
                    (
                        (
                            f"max(rate(occ_redis_delayed_synchronisations_total{{{W}}}[$__rate_interval]))",
                            "writes that waited",
                        ),
                    ),
                    "ops",
                    6,
                ),
                Panel("Replication lag", ((whole("occ_redis_replication_lag_bytes"), "last replica"),), "bytes", 12),
                Panel(
                    "Disk free", ((f"min by (directory) (occ_disk_free_bytes{{{W}}})", "{{directory}}"),), "bytes", 12
                ),
            ),
        ),
        AWAY,
    ),
)

SERVICES: Final = Dashboard(
    "occ-services",
    "OCC: subscribers' services",
    "What subscribers get and what they are refused, by service; policy nodes on Sy.",
    (
        Row(
            "Services",
            (
                Panel(
                    "Answers by Rating-Group",
                    ((rate(ANSWERS, "rating_group"), "{{rating_group}}"),),
                    "reqps",
                    stacked=True,
                ),
                Panel(
                    "Refusals by Rating-Group and Result-Code",
                    (
                        (
                            rate(ANSWERS, "rating_group, result", REFUSED),
                            "{{rating_group}}: {{result}}",
                        ),
                    ),
                    "reqps",
                ),
                Panel(
                    "Top refusals",
                    (
                        (
                            f"topk(9, sum by (rating_group, result) (increase({ANSWERS}{{{W}, {REFUSED}}}[$__range])))",
                            "{{rating_group}}: {{result}}",
                        ),
                    ),
                    kind="bargauge",
                ),
                Panel(
                    "Refused requests",
                    ((rate("occ_requests_total", "result", 'result!~"2..."'), "{{result}}"),),
                    "reqps",
                    12,
                ),
                Panel(
                    "Share of services refused",
                    (
                        (
                            f"{rate(ANSWERS, more=REFUSED)} / {rate(ANSWERS)}",
                            "share",
                        ),
                    ),
                    "percentunit",
                    12,
                ),
            ),
        ),
        Row(
            "Sy",
            (
                Panel(
                    "Requests of policy nodes",
                    ((rate("occ_sy_requests_total", "type, result"), "{{type}} {{result}}"),),
                    "reqps",
                    6,
                ),
                Panel("Subscriptions", ((whole("occ_sy_subscriptions"), "subscriptions"),), width=6),
                Panel("Notifications", ((rate("occ_sy_notifications_total", "result"), "{{result}}"),), "reqps", 6),
                Panel("From change to notification", percentiles("occ_sy_push_seconds"), "s", 6),
            ),
        ),
        Row(
            "Notices",
            (
                Panel(
                    "What became of them",
                    ((f"max by (channel, result) ({NOTICES_RATE})", "{{channel}} {{result}}"),),
                    "ops",
                ),
                Panel("Not delivered", ((whole("occ_notices_open", "state"), "{{state}}"),)),
                Panel("Oldest that waits", ((whole("occ_notices_oldest_seconds"), "oldest"),), "s"),
            ),
        ),
    ),
)

DASHBOARDS: Final = (OVERVIEW, PEERS, BALANCES, STORE, SERVICES)
