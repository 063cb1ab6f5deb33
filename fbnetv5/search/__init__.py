"""The search: policies, their estimator, the one-pass loop, and how the final architectures are taken."""
