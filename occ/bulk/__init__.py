"""Bulk import and export of accounts with what belongs to them, as CSV and JSON Lines (``docs/bulk.md``)."""
