"""A regular package, because a package ``tests`` that another project installed would hide one without this file."""
