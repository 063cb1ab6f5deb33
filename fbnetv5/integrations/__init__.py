"""Integrations of searched networks with other libraries."""
