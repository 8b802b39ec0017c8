"""Charging clients: gateways (Gy), IMS and SMS nodes (Ro), and a seeded population. They know no server but the wire."""
