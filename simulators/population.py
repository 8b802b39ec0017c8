"""The seeded population: the subscribers every sample, test and document speaks of.

Prepaid subscribers are numbered from 1 (MSISDN 491700000001, IMSI 262010000000001), postpaid ones follow
(the first hundred prepaid, 491700000101 to 491700000200 postpaid). A larger population, as load tests use,
goes on in the same way. Draws are deterministic: the same seed meets the same subscribers in the same order.
"""

from dataclasses import dataclass
from random import Random
from typing import Final

FIRST_MSISDN: Final = 491700000000
"""MSISDN of subscriber n is this plus n; E.164 without "+"."""
FIRST_IMSI: Final = 262010000000000
"""IMSI of subscriber n is this plus n."""
UNKNOWN_NUMBER: Final = 999_999
"""Subscriber number nobody has: its MSISDN 491700999999 belongs to no population."""
SAMPLE_PREPAID: Final = 100
SAMPLE_POSTPAID: Final = 100


@dataclass(frozen=True, slots=True)
class Subscriber:
    """One subscriber of the population."""

    number: int
    """From 1."""
    msisdn: str
    """E.164 without "+"."""
    imsi: str
    postpaid: bool


class Population:
    """`prepaid` subscribers numbered from 1, then `postpaid` ones; drawn from with a seed.

    Raises ValueError for a population that is empty or reaches `UNKNOWN_NUMBER`.
    """

    __slots__ = ("_random", "postpaid", "prepaid")

    def __init__(self, prepaid: int = SAMPLE_PREPAID, postpaid: int = SAMPLE_POSTPAID, *, seed: int = 1) -> None:
        if prepaid < 0 or postpaid < 0 or not 0 < prepaid + postpaid < UNKNOWN_NUMBER:
            raise ValueError(
                f"a population of {prepaid} prepaid and {postpaid} postpaid subscribers cannot be simulated; "
                f"give 1 to {UNKNOWN_NUMBER - 1} in all"
            )
        self.prepaid = prepaid
        self.postpaid = postpaid
        self._random = Random(seed)

    def __len__(self) -> int:
        return self.prepaid + self.postpaid

    def subscriber(self, number: int) -> Subscriber:
        """Subscriber `number`, from 1. Raises ValueError for a number outside the population."""
        if not 1 <= number <= len(self):
            raise ValueError(f"there is no subscriber {number}; give 1 to {len(self)}")
        return _subscriber(number, number > self.prepaid)

    def draw(self) -> Subscriber:
        """The next subscriber of the seeded sequence, each as likely as any other."""
        return self.subscriber(self._random.randint(1, len(self)))


def unknown_subscriber() -> Subscriber:
    """Somebody the server does not know, well-formed all the same."""
    return _subscriber(UNKNOWN_NUMBER, False)


def _subscriber(number: int, postpaid: bool) -> Subscriber:
    return Subscriber(number, str(FIRST_MSISDN + number), str(FIRST_IMSI + number), postpaid)
