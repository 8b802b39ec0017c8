"""Open-loop load over real sockets against a real server and a real Redis, and the figures it gives."""
