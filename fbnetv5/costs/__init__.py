"""Costs of blocks, heads and architectures, and the budgets they are compared with."""
