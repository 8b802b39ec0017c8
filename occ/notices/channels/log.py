"""The channel for those whom no other reaches: a line in the log."""

import logging

from occ.masking import masked_address, masked_numbers
from occ.notices.channel import Channel, Message, Taken

log = logging.getLogger("occ.notices")


class LogChannel(Channel):
    async def send(self, message: Message) -> Taken:
        log.info(
            "%s for %s (%s): %s",
            message.notice.template,
            masked_address(message.address) or "somebody without an address",
            message.text.language,
            masked_numbers(message.text.body.replace("\n", " / ")),
        )
        return Taken()
