"""Blocks: small frozen records that build their torch modules and name themselves."""
