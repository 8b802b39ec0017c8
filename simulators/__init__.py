"""Charging clients: gateways (Gy), IMS and SMS nodes (Ro), and a seeded population; they know only the wire."""
