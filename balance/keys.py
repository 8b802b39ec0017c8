"""Every key of the store, and the partition rule.

All keys of an account carry the hash tag of its partition, ``{pNNNN}``, so that one script can touch them together
in Redis Cluster. A *lane* is what one commit script call serves: a partition in Redis Cluster, the whole store
otherwise; each lane has one journal, one outbox and one expiry index, tagged with the lane's first partition.

In a cluster, and only there, what the directory's scripts touch together has one hash tag as well: keys that are marked
``D`` below begin with ``{directory}``, those marked ``S`` (Sy) with ``{sy}`` (``{sy}of:<account>`` for the first), and
unfinished transfers are kept with the partition of the account that pays. Elsewhere the names are as they always were,
so a store that is there stays as it is. The other keys without a tag are only ever used one by one, and are wherever
their names put them.

===============================  ==========  =====================================================================
key                              type        value
===============================  ==========  =====================================================================
``{pNNNN}:a:<account>``          string      account: 8 octets of version, then msgpack (``balance.records``)
``{pNNNN}:e:<session>``          string      session that ended, kept for repeats and late terminations; expires
``{pNNNN}:e:away;<entry>``       string      entry of a journal that a server kept without a store is settled; expires
``{pNNNN}:journal``              stream      field ``r``: journal records of one commit, in order
``{pNNNN}:closed``               hash        what closed journal records come to, by account (``balance.closing``)
``{pNNNN}:closing``              string      lease: who closes or checks the journal of the lane; expires
``{pNNNN}:outbox``               stream      field ``c``: charging data records not yet delivered
``{pNNNN}:transitions``          stream      field ``t``: accounts that came to other levels, for the policies to act on
``{pNNNN}:notices``              stream      field ``n``: notices to customers, not taken up yet (``balance.notices``)
``{pNNNN}:watch``                sorted set  account by the time (ms) at which it next needs attention
``{pNNNN}:budgets``              hash        what of each budget is gone, counted with the money
``{pNNNN}:mark``                 string      written where an answer that is repeated must have reached the replicas
``id:<type>:<identity>`` D       string      subscriber directory: msgpack of ``balance.model.Subscriber``
``sub:<subscriber>`` D           string      the same under the subscriber's own name
``members:<account>`` D          set         subscribers that belong to an account, whoever pays for them
``earlier:<subscriber>`` D       set         accounts that paid for a subscriber before; expires
``unit:<unit>`` D                string      unit of a customer: msgpack of ``balance.structure.CustomerUnit``
``unit-of:<account>`` D          string      the unit that an account is of
``units:<unit>`` D               set         units directly below one; ``units:`` those at the top
``unit-changes`` D               string      how often the structure of customers has been changed
``transfers``                    hash        transfers between accounts that are not finished (``balance.transfers``);
                                             in a cluster ``{pNNNN}:transfers``
``contact:<subscriber>`` D       string      how a subscriber is reached: msgpack of ``balance.contacts.Contact``
``contact-of:<account>`` D       string      the same for an account
``{notices}:n:<notice>``         string      notice taken up: msgpack of ``balance.notices.Delivery``
``{notices}:seen:<notice>``      string      notice that was taken up, so that it is not again; expires
``{notices}:due:<channel>``      sorted set  notices of a channel by the time (ms) at which they are due
``{notices}:due-behind:<ch...>`` sorted set  the same for marketing, which goes when there is nothing else
``{notices}:<list>``             sorted set  waiting, held, dead and finished notices by a time (ms)
``{notices}:part:<channel>:<m>`` string      notice that a channel's message belongs to, for its receipt; expires
``{notices}:counts``             hash        how often a channel (``<channel>|<result>``) had which result
``import:<reference>``           hash        where in the journal an import of that name first began
``o:<digest of session>``        string      session directory: account that holds an open session; expires some time
                                             after that has ended, in a cluster some days after it began
``{pNNNN}:sy:<account>`` S       hash        Sy subscriptions by Session-Id (``balance.subscriptions``)
``sy:<session>`` S               string      account that a Sy subscription is kept with
``sy-answer:<request>`` S        string      the answer that a request of Sy was given, for its repeats; expires
``sy-push:<session>`` S          string      the worker that tells a Sy subscription what has changed; expires
``sy-subscriptions`` S           string      how many Sy subscriptions there are
``occ:policies``                 hash        rules in force: ``edition``, ``text``, ``source``, ``catalogue`` (edition);
                                             ``levels``, packed: by these every process looks at accounts; ``looked``:
                                             the edition by which all accounts have been looked at
``occ:policy-events``            stream      field ``e``: events and notices of rules, JSON; the newest 10,000 or so
``occ:open``                     hash        how many sessions and reservations stand open (``balance.open_totals``)
``occ:trace:<name>``             stream      messages caught for ``occ trace`` (``balance.traces``); expires
``occ:layout``                   hash        how the store is laid out: ``partitions``, ``format``, ``lanes`` (in a
                                             cluster), ``created``; ``cli_tokens``
``occ:migration``                string      the process that brings the data to another format; expires
===============================  ==========  =====================================================================
"""

from hashlib import blake2b
from typing import Final
from zlib import crc32

LAYOUT: Final = b"occ:layout"
CLI_TOKENS: Final = b"cli_tokens"
"""Field of the layout: whether commands take tokens, by the settings of the server that was started last."""
MIGRATION: Final = b"occ:migration"
POLICIES: Final = b"occ:policies"
OPEN: Final = b"occ:open"
POLICY_EVENTS: Final = b"occ:policy-events"
IDENTITIES: Final = b"id:"
"""What the names of all identities begin with, on a single server."""
NOTICE: Final = b"{notices}:n:"
"""Before the name of a notice that was taken up; one hash tag, so that a script can touch all that is known of it."""
NOTICE_COUNTS: Final = b"{notices}:counts"


class Keys:
    """Key names for a store of ``partitions`` partitions (1 to 16384)."""

    __slots__ = ("_directory", "_sy", "_tags", "clustered", "partitions", "sy_count", "unit_changes")

    def __init__(self, partitions: int, clustered: bool) -> None:
        if not 1 <= partitions <= 16384:
            raise ValueError(f"partitions must be 1 to 16384, not {partitions}")
        self.partitions = partitions
        self.clustered = clustered
        self._tags = [b"{p%04d}:" % number for number in range(partitions)]
        self._directory = b"{directory}" if clustered else b""
        self._sy = b"{sy}" if clustered else b""
        self.unit_changes = self._directory + b"unit-changes"
        self.sy_count = self._sy + b"sy-subscriptions"

    def partition(self, account_id: bytes) -> int:
        return crc32(account_id) % self.partitions

    def lane(self, account_id: bytes) -> int:
        return crc32(account_id) % self.partitions if self.clustered else 0

    def lanes(self) -> range:
        return range(self.partitions if self.clustered else 1)

    # -- accounts ------------------------------------------------------------------------------------------------

    def account(self, account_id: bytes) -> bytes:
        return self._tags[crc32(account_id) % self.partitions] + b"a:" + account_id

    def ended(self, account_id: bytes, session_id: bytes) -> bytes:
        return self._tags[crc32(account_id) % self.partitions] + b"e:" + session_id

    @staticmethod
    def account_id_of(key: bytes) -> bytes:
        """The account an account key belongs to."""
        return key.split(b":a:", 1)[1]

    @staticmethod
    def session(session_id: bytes) -> bytes:
        """By a digest of the Session-Id: every open session has one of these keys, and Session-Ids are long."""
        return b"o:" + blake2b(session_id, digest_size=12).digest()

    # -- lanes ---------------------------------------------------------------------------------------------------

    def journal(self, lane: int) -> bytes:
        return self._tags[lane] + b"journal"

    def closed(self, lane: int) -> bytes:
        return self._tags[lane] + b"closed"

    def closing(self, lane: int) -> bytes:
        return self._tags[lane] + b"closing"

    def outbox(self, lane: int) -> bytes:
        return self._tags[lane] + b"outbox"

    def transitions(self, lane: int) -> bytes:
        return self._tags[lane] + b"transitions"

    def notices(self, lane: int) -> bytes:
        return self._tags[lane] + b"notices"

    def watch(self, lane: int) -> bytes:
        return self._tags[lane] + b"watch"

    def budgets(self, lane: int) -> bytes:
        return self._tags[lane] + b"budgets"

    def mark(self, lane: int) -> bytes:
        return self._tags[lane] + b"mark"

    def transfers(self, lane: int) -> bytes:
        return self._tags[lane] + b"transfers" if self.clustered else b"transfers"

    # -- the directory -------------------------------------------------------------------------------------------

    def together(self, name: bytes) -> bytes:
        """A key that a script uses together with others of no account."""
        return self._directory + name

    def identity(self, kind: int, value: bytes) -> bytes:
        return b"%bid:%d:%b" % (self._directory, kind, value)

    @staticmethod
    def identity_of(key: bytes) -> tuple[int, bytes] | None:
        """The identity a key of ``identity`` belongs to, on a single server; None: there can be none."""
        kind, _, value = key[len(IDENTITIES) :].partition(b":")
        return (int(kind), value) if kind.isdigit() and len(kind) < 11 else None

    def subscriber(self, subscriber_id: bytes) -> bytes:
        return self._directory + b"sub:" + subscriber_id

    def subscriber_of(self, key: bytes) -> bytes:
        """The subscriber a key of ``subscriber`` belongs to."""
        return key.removeprefix(self._directory).removeprefix(b"sub:")

    def members(self, account_id: bytes) -> bytes:
        return self._directory + b"members:" + account_id

    def earlier(self, subscriber_id: bytes) -> bytes:
        return self._directory + b"earlier:" + subscriber_id

    def unit(self, unit_id: bytes) -> bytes:
        return self._directory + b"unit:" + unit_id

    def unit_of(self, account_id: bytes) -> bytes:
        return self._directory + b"unit-of:" + account_id

    def units(self, parent: bytes) -> bytes:
        return self._directory + b"units:" + parent

    def contact(self, subscriber_id: bytes) -> bytes:
        return self._directory + b"contact:" + subscriber_id

    def contact_of(self, account_id: bytes) -> bytes:
        return self._directory + b"contact-of:" + account_id

    # -- Sy ------------------------------------------------------------------------------------------------------

    def sy_subscriptions(self, account_id: bytes) -> bytes:
        if self.clustered:
            return b"{sy}of:" + account_id
        return self._tags[crc32(account_id) % self.partitions] + b"sy:" + account_id

    def sy_session(self, session_id: bytes) -> bytes:
        return self._sy + b"sy:" + session_id

    def sy_answer(self, request: bytes) -> bytes:
        return self._sy + b"sy-answer:" + request

    def sy_push(self, session_id: bytes) -> bytes:
        return self._sy + b"sy-push:" + session_id

    # -- notices -------------------------------------------------------------------------------------------------

    @staticmethod
    def notice(notice_id: bytes) -> bytes:
        return NOTICE + notice_id

    @staticmethod
    def notice_seen(notice_id: bytes) -> bytes:
        return b"{notices}:seen:" + notice_id

    @staticmethod
    def notice_queue(channel: str, behind: bool) -> bytes:
        return b"{notices}:%b:%b" % (b"due-behind" if behind else b"due", channel.encode())

    @staticmethod
    def notice_list(name: str) -> bytes:
        return b"{notices}:" + name.encode()

    @staticmethod
    def notice_part(channel: str, message_id: str) -> bytes:
        return b"{notices}:part:%b:%b" % (channel.encode(), message_id.encode())
