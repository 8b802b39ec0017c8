"""SMPP 3.4: short messages handed to a message centre, and what it says of their delivery."""
