"""The runtimes that execute a graph while it is timed, a file for each; ``latency/backends.py`` chooses one."""
