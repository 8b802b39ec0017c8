"""The online charging core: listeners, interfaces, charging, rating, outbox and the command line."""
