"""Diameter base protocol (RFC 6733): codes, dictionary, codec, message shapes, and the peer connection."""
