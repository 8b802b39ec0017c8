"""For every alert: input under which it fires, and input, as like that as can be, under which it does not."""

from dataclasses import dataclass
from typing import Final

Series = dict[str, str]
"""Series -> its values, one a minute, in promtool's notation: "0+60x10" is 0, 60, ... 600."""


@dataclass(frozen=True)
class Case:
    alert: str
    fires: Series
    silent: Series
    at: str = "20m"
    """When both are looked at."""


WORKER: Final = 'up{job="occ",process="worker",instance="a"}'
OFFICE: Final = 'up{job="occ",process="backoffice",instance="b"}'


def _latency(slow_a_minute: int, minutes: int) -> Series:
    """A hundred requests a minute, so many of them slower than 50 ms."""
    fast = 100 - slow_a_minute
    return {
        'occ_request_seconds_bucket{type="update",le="0.05",instance="a"}': f"0+{fast}x{minutes}",
        'occ_request_seconds_bucket{type="update",le="+Inf",instance="a"}': f"0+100x{minutes}",
        'occ_request_seconds_count{type="update",instance="a"}': f"0+100x{minutes}",
    }


def _requests(result: str, a_minute: int) -> Series:
    return {
        'occ_requests_total{type="update",result="2001",instance="a"}': "0+1000x30",
        f'occ_requests_total{{type="update",result="{result}",instance="a"}}': f"0+{a_minute}x30",
    }


def _histogram(name: str, within_bound: int) -> Series:
    """A hundred a minute, so many within 10 ms, the others between 2.5 and 5 s."""
    return {
        f'{name}_bucket{{le="0.01",instance="a"}}': f"0+{within_bound}x40",
        f'{name}_bucket{{le="2.5",instance="a"}}': f"0+{within_bound}x40",
        f'{name}_bucket{{le="5.0",instance="a"}}': "0+100x40",
        f'{name}_bucket{{le="+Inf",instance="a"}}': "0+100x40",
    }


def _disk(free: str) -> Series:
    return {
        'occ_disk_free_bytes{directory="data",instance="a"}': free,
        'occ_disk_size_bytes{directory="data",instance="a"}': "1000x60",
    }


def _notices(failed: int, sent: int) -> Series:
    return {
        'occ_notices_total{channel="sms",result="failed",instance="a"}': f"0+{failed}x40",
        'occ_notices_total{channel="sms",result="sent",instance="a"}': f"0+{sent}x40",
    }


def _one(name: str, fires: str, silent: str, alert: str, at: str = "20m") -> Case:
    return Case(alert, {name: fires}, {name: silent}, at)


CASES: Final = (
    Case("OccWorkerDown", {WORKER: "1x5 0x20"}, {WORKER: "1x19 0 1x5", OFFICE: "0x25"}),
    Case("OccBackofficeDown", {OFFICE: "0x25"}, {WORKER: "0x25", OFFICE: "1x25"}),
    _one(
        'occ_catalogue_reloads_total{result="failed",instance="a"}',
        "0x10 1x20",
        "1x30",
        "OccReloadFailed",
    ),
    Case("OccLatencyBurnFast", _latency(9, 40), _latency(6, 40)),
    Case("OccLatencyBurnSlow", _latency(4, 40), _latency(2, 40), at="30m"),
    Case("OccErrorRatio", _requests("5012", 20), _requests("5012", 5) | _requests("4012", 500)),
    Case(
        "OccUnknownSessions",
        _requests("5002", 40),
        _requests("5002", 40) | {'occ_requests_total{type="initial",result="4012",instance="a"}': "0+40x30"},
    ),
    Case(
        "OccRequestsRejected",
        {'occ_requests_rejected_total{reason="delay",type="initial",instance="a"}': "0+10x30"},
        {
            'occ_requests_rejected_total{reason="delay",type="initial",instance="a"}': "10x30",
            'occ_requests_rejected_total{reason="rate",type="initial",instance="a"}': "0+10x30",
        },
    ),
    Case(
        "OccRunningSessionsRejected",
        {'occ_requests_rejected_total{reason="delay",type="update",instance="a"}': "0x19 5x10"},
        {'occ_requests_rejected_total{reason="delay",type="initial",instance="a"}': "0+10x30"},
    ),
    _one(
        'occ_peer_requests_over_rate_total{peer="smf.example.net",instance="a"}', "0+10x30", "10x30", "OccPeerOverRate"
    ),
    Case(
        "OccPeerDown",
        {f'occ_peer_up{{peer="smf.example.net",instance="{each}"}}': "1x10 0x20" for each in "ab"},
        {
            'occ_peer_up{peer="smf.example.net",instance="a"}': "1x30",
            'occ_peer_up{peer="smf.example.net",instance="b"}': "0x30",
        },
    ),
    _one('occ_worker_restarts_total{instance="a"}', "0x5 1x5 2x20", "0x5 1x25", "OccWorkerRestarts"),
    _one('occ_peers_up{instance="a"}', "2x10 0x20", "0x30", "OccNoPeers"),
    _one('occ_store_up{instance="a"}', "1x10 0x20", "1x30", "OccRedisDown"),
    _one('occ_away_granting{instance="a"}', "0x10 1x20", "0x30", "OccGrantingAway"),
    Case(
        "OccAwayUnsettled",
        {'occ_away_entries_waiting{instance="a"}': "9x30", 'occ_store_up{instance="a"}': "1x30"},
        {'occ_away_entries_waiting{instance="a"}': "9x30", 'occ_store_up{instance="a"}': "0x18 1x30"},
    ),
    _one('occ_away_settled_total{result="lost",instance="a"}', "0x10 3x20", "3x30", "OccAwayLost"),
    Case(
        "OccRedisSlow",
        _histogram("occ_store_round_trip_seconds", 90),
        _histogram("occ_store_round_trip_seconds", 100),
        at="30m",
    ),
    _one('occ_store_reconnects_total{instance="a"}', "0+1x30", "0x15 1x15", "OccRedisReconnects"),
    _one('occ_redis_writes_to_disk{instance="a"}', "1x10 0x20", "1x30", "OccRedisNotWritten"),
    Case(
        "OccRedisMemory",
        {'occ_redis_memory_bytes{instance="a"}': "90x30", 'occ_redis_memory_limit_bytes{instance="a"}': "100x30"},
        {'occ_redis_memory_bytes{instance="a"}': "90x30", 'occ_redis_memory_limit_bytes{instance="a"}': "0x30"},
    ),
    _one('occ_redis_replication_lag_bytes{instance="a"}', "20000000x30", "5000000x30", "OccReplicationLag"),
    _one('occ_redis_replicas{instance="a"}', "2x10 1x20", "1x30", "OccReplicaLost"),
    Case(
        "OccConflictStorm",
        {
            'occ_store_version_conflicts_total{instance="a"}': "0+30x40",
            'occ_store_plans_total{instance="a"}': "0+100x40",
        },
        {
            'occ_store_version_conflicts_total{instance="a"}': "0+10x40",
            'occ_store_plans_total{instance="a"}': "0+100x40",
        },
        at="30m",
    ),
    _one('occ_outbox_oldest_seconds{instance="a"}', "0x5 200+60x20", "90x30", "OccOutboxLag"),
    _one('occ_supervision_overdue_accounts{instance="a"}', "3x30", "3x5 0x25", "OccReservationLeak"),
    Case(
        "OccLeakage",
        {
            'occ_money_leaked_total{currency="EUR",instance="a"}': "0+2x40",
            'occ_money_debited_total{currency="EUR",instance="a"}': "0+100x40",
        },
        {
            'occ_money_leaked_total{currency="EUR",instance="a"}': "0+0.5x40",
            'occ_money_debited_total{currency="EUR",instance="a"}': "0+100x40",
        },
        at="35m",
    ),
    Case(
        "OccPushDelay",
        _histogram("occ_policy_push_seconds", 80),
        _histogram("occ_policy_push_seconds", 99),
        at="30m",
    ),
    _one('occ_policy_failures_total{instance="a"}', "0x10 1x20", "1x30", "OccPolicyFailures"),
    Case("OccNoticesFail", _notices(2, 8), _notices(1, 20), at="35m"),
    _one('occ_notices_oldest_seconds{instance="a"}', "700x30", "400x30", "OccNoticesWait"),
    Case("OccDiskFull", _disk("40x60"), _disk("60x60")),
    Case("OccDiskFills", _disk("390-0.8x60"), _disk("390-0.1x60"), at="40m"),
)
