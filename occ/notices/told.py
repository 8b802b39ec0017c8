"""What a notice about an account can always be told."""

from balance.accounts import Account
from balance.model import Unit
from balance.notices import Value
from occ.rating.currency import currency_name


def account_values(account: Account, now_ms: int) -> dict[str, Value]:
    """Balance, credit limit and currency of an account, as the shipped texts want them.

    The balance, micro-units, is all money that has not expired, what running sessions have reserved included: it is
    what the customer sees in the account.
    """
    money = sum(
        bucket.balance
        for bucket in account.buckets
        if bucket.unit == Unit.MONEY and not (bucket.expires_ms and bucket.expires_ms <= now_ms)
    )
    return {"balance": money, "limit": account.credit_limit_micro, "currency": currency_name(account.currency)}
