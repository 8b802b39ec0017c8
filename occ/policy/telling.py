"""What customers are told when a rule begins or ceases to hold: the notice, with all that its text may want."""

from balance.notices import Notice
from occ.notices.told import account_values
from occ.policy.acting import Due
from policies.levels import Measured
from policies.policy import Policies


def notice_of(due: Due, policies: Policies | None) -> Notice:
    """The notice to hand in. ``policies``: the rules in force, which may no longer have the rule that it is for."""
    account, at_ms = due.account, due.transition.at_ms
    values = account_values(account, at_ms)
    rule = next((each for each in policies.rules if each.name == due.rule), None) if policies is not None else None
    if rule is not None and policies is not None:
        throttle = policies.throttles.get(rule.throttle)
        if throttle is not None:
            values["rate"] = throttle.down_bit_s
        bundles = [
            each.measure.name
            for each in policies.levels
            if each.name in rule.levels and each.measure.what is Measured.BUCKET
        ]
        if bundles:
            values["bundle"] = bundles[0]
        if len(rule.services) == 1:
            values["service"] = rule.services[0]
    return Notice(due.notice_id, account.account_id, b"", "account-state", due.template, values, at_ms)
