"""What the journal says of one account: the sums of its records, as far as they have been read or closed."""

from typing import Any, Final

import msgpack

from balance.directory import ADD_BUCKET, ADJUST, CREATE, TOP_UP
from balance.records import JournalRecord
from balance.transfers import TRANSFER_IN, TRANSFER_OUT

EXPIRE: Final = "expire"
"""Operation that empties what lapsed."""

# One bucket's place in the flat list of sums.
ID, BALANCE, RESERVED, CREDITED, GIVEN, DEBITED, LAPSED, ADJUSTED, TRANSFERRED, WIDTH = range(10)

_COUNTED_AS: Final = {
    CREATE: CREDITED,
    TOP_UP: CREDITED,
    ADD_BUCKET: CREDITED,
    ADJUST: ADJUSTED,
    TRANSFER_IN: TRANSFERRED,
    TRANSFER_OUT: TRANSFERRED,
    EXPIRE: LAPSED,
    "import": CREDITED,
    "renew": GIVEN,
    "plan-offers": GIVEN,
    "loyalty": GIVEN,
}
"""Where an operation's changes of a balance belong; those of all others are debits, or given back of these."""

_pack: Final = msgpack.Packer().pack


class Sums:
    """The records of one account, added up."""

    __slots__ = ("buckets", "compared", "version")

    def __init__(self, version: int = 0, buckets: list[int] | None = None) -> None:
        self.version = version
        """Of the last record; 0: there was none."""
        self.buckets = [] if buckets is None else buckets
        """``WIDTH`` numbers per bucket: what the last record left, then where all its changes came from."""
        self.compared = False
        """The account has been held against them (``balance.verify``)."""

    def at(self, bucket_id: int) -> int:
        """Where a bucket's numbers start, -1 if the journal has not named it."""
        for at in range(0, len(self.buckets), WIDTH):
            if self.buckets[at] == bucket_id:
                return at
        return -1

    def bucket_ids(self) -> list[int]:
        return self.buckets[::WIDTH]

    def broken_links(self, record: JournalRecord) -> list[str]:
        """Where a record does not start from what the one before it left, a sentence each."""
        found = []
        for change in record.changes:
            at = self.at(change.bucket_id)
            balance, reserved = (0, 0) if at < 0 else (self.buckets[at + BALANCE], self.buckets[at + RESERVED])
            for what, left, said in (
                (f"the balance of bucket {change.bucket_id}", balance, change.balance_after - change.balance_delta),
                (
                    f"what is reserved of bucket {change.bucket_id}",
                    reserved,
                    change.reserved_after - change.reserved_delta,
                ),
            ):
                if left != said:
                    found.append(
                        f"the record of version {record.version} ({record.operation}) says that {what} was {said} "
                        f"before, but the record before it left {left}"
                    )
        return found

    def add(self, record: JournalRecord) -> None:
        """Take in the next record."""
        self.version = record.version
        counted_as = _COUNTED_AS.get(record.operation, DEBITED)
        for change in record.changes:
            at = self.at(change.bucket_id)
            if at < 0:
                at = len(self.buckets)
                self.buckets += (change.bucket_id, *[0] * (WIDTH - 1))
            numbers = self.buckets
            numbers[at + BALANCE] = change.balance_after
            numbers[at + RESERVED] = change.reserved_after
            counted = counted_as
            if counted == LAPSED and change.balance_delta > 0:
                counted = GIVEN  # an offer without a fee was renewed by the way
            taken = counted in (DEBITED, LAPSED)
            numbers[at + counted] += -change.balance_delta if taken else change.balance_delta

    def pack(self) -> bytes:
        """As they are kept in the store once the records are closed. Raises OverflowError beyond 64 bits."""
        packed: bytes = _pack((self.version, self.buckets))
        return packed

    @classmethod
    def unpack(cls, value: bytes) -> "Sums":
        """Raises ValueError for what ``pack`` did not write."""
        try:
            fields: Any = msgpack.unpackb(value, strict_map_key=False)
            version, buckets = fields
        except (msgpack.UnpackException, TypeError) as error:
            raise ValueError(str(error)) from error
        if not isinstance(version, int) or not isinstance(buckets, list) or len(buckets) % WIDTH:
            raise ValueError("not the sums of an account")
        return cls(version, buckets)
