"""The servers that run by some settings, and what they tell together: one process, or the workers of a supervisor."""

from typing import Any

from occ.reaching import NotReachedError, fetch_peers, metrics_url
from occ.settings import Settings, of_worker
from occ.workers_file import running_workers


def metrics_urls(settings: Settings) -> list[str]:
    """Where they serve what they tell of themselves: as the supervisor tells, else as the settings say."""
    running = running_workers(settings.store.data_dir)
    if running is not None:
        return [f"http://{each.metrics}" for each in running.workers]
    each_its_own = [of_worker(settings, number).metrics for number in range(1, (settings.workers or 1) + 1)]
    return [metrics_url(each.host, each.port) for each in each_its_own]


def is_open(peer: dict[str, Any]) -> bool:
    """Whether its connection is open (RFC 6733 section 5.6: I-Open or R-Open)."""
    return str(peer.get("state", "")).endswith("Open")


def all_peers(urls: list[str]) -> list[dict[str, Any]]:
    """The peers of some servers, each with the ``server`` it was asked of, those of several servers once for each that
    has a connection with it; where none has, once.

    Servers that do not answer are passed over; raises NotReachedError if none does.
    """
    found: list[dict[str, Any]] = []
    failures: list[NotReachedError] = []
    for url in urls:
        try:
            found += [{**peer, "server": url.removeprefix("http://")} for peer in fetch_peers(f"{url}/peers")]
        except NotReachedError as error:
            failures.append(error)
    if failures and len(failures) == len(urls):
        raise failures[0]
    opened = {str(peer.get("origin_host")).lower() for peer in found if is_open(peer)}
    kept: list[dict[str, Any]] = []
    for peer in found:
        name = str(peer.get("origin_host")).lower()
        if is_open(peer) or (name not in opened and all(str(each["origin_host"]).lower() != name for each in kept)):
            kept.append(peer)
    return kept
