"""The server's settings: `config/occ.yaml`, then `OCC_…` environment variables, then options; the last wins.

Every setting is checked when it is loaded; a mistake is a `ConfigError` that says where it stands and what is
allowed there.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from occ.diameter_settings import DiameterSettings
from occ.notices.settings import NoticesSettings
from occ.setting_values import (
    is_domain_name,
    read_amount,
    read_host,
    read_path,
    read_path_or_none,
    read_web_address,
    read_written_path,
)
from occ.store_settings import StoreSettings
from occ.yamlmap import (
    ConfigError,
    Node,
    build,
    choice,
    integer,
    leaf_paths,
    load_yaml,
    nearest,
    optional,
    section,
    setting,
    shown,
)

ENVIRONMENT_PREFIX: Final = "OCC_"
CONFIG_VARIABLE: Final = "OCC_CONFIG"
TOKEN_VARIABLE: Final = "OCC_TOKEN"
TOKEN_FILE_VARIABLE: Final = "OCC_TOKEN_FILE"
_NO_SETTINGS: Final = frozenset((CONFIG_VARIABLE, TOKEN_VARIABLE, TOKEN_FILE_VARIABLE))
"""Variables with the prefix that are none."""
JOURNAL_DAYS: Final = 8
"""Fewest days that records stay in Redis: a day longer than references of payments count (``balance.directory``)."""
MOST_WORKERS: Final = 64
HIGHEST_PORT: Final = 65_535
_BESIDE: Final = Path(__file__).resolve().parent.parent / "config"
IS_INSTALLED: Final = not (_BESIDE / "occ.yaml").is_file()
"""There is no checkout of the project around this package, which came as a wheel."""
SHIPPED: Final = Path(__file__).resolve().parent / "config" if IS_INSTALLED else _BESIDE
"""The configuration that comes with the project."""


def _keep_days(node: Node) -> int:
    days = node.integer(0, 36_500)
    if 0 < days < JOURNAL_DAYS:
        raise node.error(
            f"{node.path} must be {JOURNAL_DAYS} or more, or 0 for ever: by the journal of the last days repeated "
            "payments and imports are recognised"
        )
    return days


@dataclass(frozen=True, slots=True)
class MetricsSettings:
    """The HTTP listener of `/metrics` and of the NOC page, `/noc`."""

    host: str = setting(read_host, "127.0.0.1")
    port: int = setting(integer(0, 65535), 9464)
    """TCP port; 0: any free port."""
    prometheus_url: str | None = setting(optional(read_web_address), None)
    """Where the NOC page asks which alerts fire; None: it does not."""
    targets_file: Path | None = setting(read_path_or_none, None)
    """The supervisor of workers writes their metrics listeners into this file for Prometheus (``file_sd_configs``);
    None: into none. Absolute once loaded."""


@dataclass(frozen=True, slots=True)
class ChargingSettings:
    """Sessions, repeats and admission."""

    answer_replay_seconds: int = setting(integer(240, 86_400), 300)
    """How long a repeat gets the first answer; RFC 6733, 3 asks for 4 minutes."""
    tcc_factor: int = setting(integer(1, 10), 2)
    """Tcc in Validity-Times (RFC 8506, 13 recommends 2)."""
    late_termination_seconds: int = setting(integer(1, 604_800), 3600)
    """How long after Tcc the usage of a termination request is still debited."""
    refund_window_seconds: int = setting(integer(1, 30 * 86_400), 86_400)
    """How long a direct debit can be refunded; it is kept in the store for so long."""
    low_balance: int = setting(read_amount, 0)
    """Below this, in micro-units of the catalogue's currency, clients are told that the balance is low; 0: never."""
    prepaid_valid_days: int = setting(integer(0, 36_500), 0)
    """How long, in days of 24 hours, a prepaid account is in service after it was created or topped up; 0: for ever."""
    grace_days: int = setting(integer(0, 36_500), 0)
    """How long after that a top-up still brings it back; then it is terminated."""
    in_flight_limit: int = setting(integer(1, 1_000_000), 2000)
    """Requests under way at once; beyond it the oldest first requests that wait are answered DIAMETER_TOO_BUSY."""
    queue_delay_ms: int = setting(integer(1, 60_000), 200)
    """How long a first request may wait to be begun, an eighth of it where the queue lasts (`occ.admission`)."""
    account_cache_entries: int = setting(integer(0, 100_000_000), 100_000)
    """Account snapshots a worker keeps; 0: none."""


@dataclass(frozen=True, slots=True)
class CdrSettings:
    """Charging data records."""

    directory: Path = setting(read_written_path, Path("cdr"))
    """Absolute once loaded; a relative one starts at `store.data_dir`."""
    format: str = setting(choice("jsonl", "csv", "both"), "jsonl")
    rotate_bytes: int = setting(integer(4096, 1 << 40), 1 << 26)
    """A file is closed when it has grown to this."""
    rotate_seconds: int = setting(integer(1, 86_400 * 7), 3600)
    """A file is closed when it is this old."""
    partial_seconds: int = setting(integer(0, 86_400 * 7), 3600)
    """A session that goes on for so long has a partial record, and another when its price changes; 0: never."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Those that `format` stands for."""
        return ("jsonl", "csv") if self.format == "both" else (self.format,)


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """What becomes of the ledger's history."""

    directory: Path = setting(read_written_path, Path("journal"))
    """Files of records that have left Redis. Absolute once loaded; a relative one starts at `store.data_dir`."""
    keep_days: int = setting(_keep_days, 31)
    """How long records stay in Redis, in days of 24 hours; 0: for ever."""


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """The management API, a process of its own (`occ api`)."""

    host: str = setting(read_host, "127.0.0.1")
    port: int = setting(integer(0, 65535), 9463)
    """TCP port; 0: any free port."""
    certificate: Path | None = setting(optional(read_path), None)
    """PEM file with its certificate and what that was issued by; None: HTTP without TLS."""
    key: Path | None = setting(optional(read_path), None)
    """PEM file with its private key."""

    def __post_init__(self) -> None:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("TLS of the API needs both api.certificate and api.key")
        if self.certificate is None and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(
                f"api.host {self.host} can be reached from elsewhere, and tokens must not travel in the clear: "
                "give api.certificate and api.key, or listen on 127.0.0.1 behind a proxy that has TLS"
            )


@dataclass(frozen=True, slots=True)
class CommandSettings:
    """The commands of `occ` that use the store."""

    tokens: str = setting(choice("optional", "required"), "optional")
    """"required": each takes a token whose role allows it (`occ.cli_roles`)."""


@dataclass(frozen=True, slots=True)
class VoucherSettings:
    """Codes that are worth money once."""

    pepper_file: Path = setting(read_written_path, Path("voucher-pepper"))
    """The secret under which codes are kept; made when it is needed first. Absolute once loaded; a relative one
    starts at `store.data_dir`."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of one server process."""

    workers: int | None = setting(optional(integer(1, MOST_WORKERS)), None)
    """So many processes charge, under a supervisor (`occ.supervisor`) that replaces them one by one when asked; None:
    the process that is started charges itself."""
    diameter: DiameterSettings = section(DiameterSettings)
    metrics: MetricsSettings = section(MetricsSettings)
    store: StoreSettings = section(StoreSettings)
    charging: ChargingSettings = section(ChargingSettings)
    cdr: CdrSettings = section(CdrSettings)
    journal: JournalSettings = section(JournalSettings)
    notices: NoticesSettings = section(NoticesSettings)
    api: ApiSettings = section(ApiSettings)
    cli: CommandSettings = section(CommandSettings)
    vouchers: VoucherSettings = section(VoucherSettings)
    catalogue: Path = setting(read_path, Path("catalogue.yaml"))
    """The tariff catalogue; absolute once loaded."""
    profiles: Path | None = setting(optional(read_path), None)
    """What charging clients can do; None: as the project ships it."""
    policies: Path | None = setting(read_path_or_none, None)
    """The rules about what subscribers may use by what they have left; None: no rules. Absolute once loaded."""
    log_level: str = setting(choice("debug", "info", "warning", "error"), "info")

    def __post_init__(self) -> None:
        self._check_ports(self.workers or 1)
        last = worker_identity(self.diameter.origin_host, self.workers or 1)
        if not is_domain_name(last, labels=2):
            raise ValueError(f"the last worker would be {last}, which is no domain name: shorten diameter.origin_host")

    def _check_ports(self, count: int) -> None:
        """Each worker has the ports of the first and its own number more: no two of all these may be the same."""
        if count == 1:
            return
        taken: dict[int, str] = {}
        first = {"diameter.port": self.diameter.port, "metrics.port": self.metrics.port}
        if self.diameter.tls.certificate is not None:
            first["diameter.tls.port"] = self.diameter.tls.port
        taken.update({self.api.port: "api.port"} if self.api.port else {})
        for name, port in first.items():
            for number in range(count if port else 0):
                other = taken.setdefault(port + number, name)
                if other != name:
                    raise ValueError(
                        f"{count} workers need as many ports from {name} {port} on, and {port + number} is taken by "
                        f"{other}"
                    )
            if port + count - 1 > HIGHEST_PORT:
                raise ValueError(f"{count} workers need as many ports from {name} {port} on: there are not so many")


def worker_identity(origin_host: str, number: int) -> str:
    """The Origin-Host of the worker of that number, from 1: the first has the one of the settings, the others count on.

    The number at the end of the first label counts (occ1, occ2; ocs09, ocs10); a label without one gets it (ocs, ocs2).
    """
    if number == 1:
        return origin_host
    label, dot, domain = origin_host.partition(".")
    name = label.rstrip("0123456789")
    digits = label[len(name) :]
    counted = int(digits or 1) + number - 1
    return f"{name}{counted:0{len(digits)}d}{dot}{domain}"


def of_worker(settings: Settings, number: int) -> Settings:
    """The settings of the worker of that number, from 1: an identity and ports of its own."""
    diameter, metrics = settings.diameter, settings.metrics

    def port(first: int) -> int:
        return first + number - 1 if first else 0

    return replace(
        settings,
        workers=None,
        diameter=replace(
            diameter,
            origin_host=worker_identity(diameter.origin_host, number),
            port=port(diameter.port),
            tls=replace(diameter.tls, port=port(diameter.tls.port)),
        ),
        metrics=replace(metrics, port=port(metrics.port)),
    )


def origin_hosts(settings: Settings) -> list[str]:
    """Those of all workers, in their order; of the server alone if it has none."""
    host = settings.diameter.origin_host
    workers = range(1, settings.workers + 1) if settings.workers else ()
    return [worker_identity(host, number) for number in workers] or [host]


def load(
    path: Path | None = None,
    overrides: Mapping[str, str] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Settings from a file, the environment and options.

    `path` is the file; None: the one `OCC_CONFIG` names, else the `config/occ.yaml` shipped with the project.
    `overrides` are options by dotted name, `{"diameter.port": "3869"}`; their relative paths, and those of
    environment variables, start at the current directory. `environ` defaults to the process's environment;
    empty variables count as unset. Raises `ConfigError`.
    """
    environ = os.environ if environ is None else environ
    named = environ.get(CONFIG_VARIABLE)
    root = load_yaml(path or (Path(named) if named else default_config_path()))
    loaded = build(root, Settings, _from_environment(environ) | _from_options(overrides or {}))
    # Paths that are left out start at the file's directory, like those that are written in it.
    data_dir = (root.base / loaded.store.data_dir).resolve()
    if IS_INSTALLED and data_dir == (SHIPPED / "../data").resolve():
        data_dir = state_directory(environ)  # not among the installed packages
    return replace(
        loaded,
        store=replace(loaded.store, data_dir=data_dir),
        cdr=replace(loaded.cdr, directory=data_dir / loaded.cdr.directory),
        journal=replace(loaded.journal, directory=data_dir / loaded.journal.directory),
        vouchers=replace(loaded.vouchers, pepper_file=data_dir / loaded.vouchers.pepper_file),
        metrics=replace(
            loaded.metrics,
            targets_file=None if loaded.metrics.targets_file is None else root.base / loaded.metrics.targets_file,
        ),
        catalogue=root.base / loaded.catalogue,
        profiles=loaded.profiles or SHIPPED / "profiles.yaml",
        policies=None if loaded.policies is None else root.base / loaded.policies,
        notices=replace(loaded.notices, templates=loaded.notices.templates or SHIPPED / "templates"),
    )


def state_directory(environ: Mapping[str, str]) -> Path:
    """Where data goes that no settings give a place, if the program was installed: `~/.local/state/occ`."""
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "occ"


def default_config_path() -> Path:
    """The `occ.yaml` that comes with the project. Raises `ConfigError` where it was left out."""
    path = SHIPPED / "occ.yaml"
    if not path.is_file():
        raise ConfigError(
            shown(path), None, "there is no default configuration here; name one with --config or OCC_CONFIG"
        )
    return path


def variable_name(path: str) -> str:
    """The environment variable of a setting: `diameter.port` -> `OCC_DIAMETER_PORT`."""
    return ENVIRONMENT_PREFIX + path.upper().replace(".", "_")


def option_name(path: str) -> str:
    """The command line's option for a setting: `diameter.port` -> `--diameter-port`."""
    return "--" + path.replace(".", "-").replace("_", "-")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Node]:
    paths = {variable_name(path): path for path in leaf_paths(Settings)}
    nodes: dict[str, Node] = {}
    for name, value in sorted(environ.items()):
        if not name.startswith(ENVIRONMENT_PREFIX) or name in _NO_SETTINGS or not value:
            continue
        if name not in paths:
            raise ConfigError(name, None, f"there is no such setting{nearest(name, paths)}")
        nodes[paths[name]] = Node.scalar(value, name, paths[name], Path.cwd())
    return nodes


def _from_options(overrides: Mapping[str, str]) -> dict[str, Node]:
    paths = leaf_paths(Settings)
    for path in overrides:
        if path not in paths:
            raise ConfigError(option_name(path), None, f"there is no such setting{nearest(path, paths)}")
    here = Path.cwd()
    return {path: Node.scalar(value, option_name(path), path, here) for path, value in overrides.items()}
