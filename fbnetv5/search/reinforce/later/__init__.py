"""Later tasks: a task that is added to a finished search, whose trunk stays as it is."""
