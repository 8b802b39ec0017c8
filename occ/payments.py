"""Money that comes in: a top-up with all that goes with it, and vouchers.

What a top-up does beside adding money: bonuses of the catalogue, a longer life for a prepaid account, and sessions that
had run out of credit ask anew.
"""

import os
import secrets
from pathlib import Path
from typing import Final

from balance import attempts, directory
from balance.accounts import Account
from balance.directory import Posting, existing
from balance.model import MAIN_BUCKET, AccountKind, LedgerError, LifeState, Unit
from balance.store import Store
from balance.vouchers import BOUND_FOR_MS, Voucher, Vouchers, WrongCodeError
from occ.awards import awards_for
from occ.rating.catalogue import Catalogue
from occ.rating.promotions import Award
from occ.server_requests import credit_has_come, standing_has_changed
from occ.yamlmap import ConfigError, shown

PEPPER_OCTETS: Final = 32


class TooManyTriesError(LedgerError):
    """Too many wrong codes of late."""

    def __init__(self, wait_ms: int) -> None:
        self.wait_s = -(-wait_ms // 1000)
        """How long to wait."""
        super().__init__(f"too many wrong codes; try again in {self.wait_s} s")


async def take_payment(
    store: Store,
    catalogue: Catalogue | None,
    account_id: bytes,
    amount: int,
    *,
    now_ms: int,
    reason: str,
    valid_for_ms: int,
    bucket_id: int = MAIN_BUCKET,
    reference: str | None = None,
) -> tuple[Posting, tuple[Award, ...]]:
    """Top an account up, with the bonuses of the catalogue; None: none. Parameters as ``directory.top_up_account``.

    Raises LedgerError, StoreError.
    """
    before = existing(await directory.read_account(store, account_id), account_id)
    bucket = before.bucket(bucket_id)
    awards = None
    if catalogue is not None and bucket is not None and bucket.unit == Unit.MONEY:
        awards = await awards_for(store, catalogue, account_id, amount, now_ms)
    done = await directory.top_up_account(
        store,
        account_id,
        amount,
        now_ms=now_ms,
        reason=reason,
        bucket_id=bucket_id,
        reference=reference,
        valid_for_ms=valid_for_ms,
        also=None if awards is None else awards.give,
    )
    await tell_of_credit(store, before)
    return done, () if awards is None or done.repeated else awards.awards


async def tell_of_credit(store: Store, before: Account) -> None:
    """Have sessions ask anew that the account could not serve before. Raises StoreError."""
    if before.kind == AccountKind.PREPAID and before.state == LifeState.GRACE:
        await standing_has_changed(store, before.account_id)
    else:
        await credit_has_come(store, before.account_id)


async def redeem_voucher(
    store: Store,
    vouchers: Vouchers,
    catalogue: Catalogue | None,
    account_id: bytes,
    code: str,
    *,
    source: str,
    now_ms: int,
    valid_for_ms: int,
) -> tuple[Voucher, Posting]:
    """Top an account up by what a voucher is worth; repeated for the same account, it is done once.

    ``source``: who passes the code on; codes that are wrong are counted for it and for the account.

    Raises TooManyTriesError, WrongCodeError, LedgerError if the voucher or the account is not good for it, StoreError.
    """
    account = existing(await directory.read_account(store, account_id), account_id)
    if account.state == LifeState.TERMINATED:
        raise LedgerError(f"account {account_id.decode()} is terminated and takes no money")
    tried = ((attempts.VOUCHERS_OF_ACCOUNT, account_id.decode()), (attempts.VOUCHERS_OF_SOURCE, source))
    for limit, who in tried:
        if wait_ms := await attempts.begin_try(store, limit, who):
            raise TooManyTriesError(wait_ms)
    try:
        voucher = await vouchers.bind(code, account_id, now_ms, currency=account.currency)
    except WrongCodeError:
        raise
    except LedgerError:
        await attempts.take_back_try(store, attempts.VOUCHERS_OF_SOURCE, source)
        raise
    await attempts.forget_tries(store, attempts.VOUCHERS_OF_ACCOUNT, account_id.decode())
    await attempts.take_back_try(store, attempts.VOUCHERS_OF_SOURCE, source)
    if voucher.used_ms and now_ms - voucher.bound_ms > BOUND_FOR_MS:
        raise LedgerError(f"voucher {voucher.serial} has been used")
    posting, _ = await take_payment(
        store,
        catalogue,
        account_id,
        voucher.batch.amount_micro,
        now_ms=now_ms,
        reason="voucher",
        valid_for_ms=valid_for_ms,
        reference=f"voucher-{voucher.serial}",
    )
    await vouchers.note_used(code, now_ms)
    return voucher, posting


def voucher_pepper(path: Path, *, create: bool) -> bytes:
    """The secret of a file, which is made if it may be. Raises ConfigError for a file that cannot be used."""
    try:
        if create and not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(made, "wb") as file:
                file.write(secrets.token_hex(PEPPER_OCTETS).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
        pepper = path.read_bytes().strip()
    except FileNotFoundError:
        raise ConfigError(
            shown(path), None, "there is no such file with the secret of vouchers; the first batch makes it"
        ) from None
    except OSError as error:
        raise ConfigError(shown(path), None, f"the secret of vouchers: {error.strerror}") from error
    if len(pepper) < 16:
        raise ConfigError(shown(path), None, "the secret of vouchers must have 16 octets or more")
    return pepper
