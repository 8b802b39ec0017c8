"""Notices to customers: from what happened to an SMS, e-mail or message in the customer's language.

``enqueue`` is all that the rest of the server needs: it hands notices in, and a process of its own (``process``) takes
them up, chooses a channel (``routing``), renders the text (``templates``) and delivers it (``delivery``, ``channels``).
"""

from balance.notices import CLASSES, Notice, Value, enqueue, pack, unpack

__all__ = ["CLASSES", "Notice", "Value", "enqueue", "pack", "unpack"]
