"""The ledger: accounts, buckets, reservations; the only package where money changes and that talks to Redis."""
