"""Protocols on the wire: bytes to typed messages and back. Knows no account, no price and no store."""
