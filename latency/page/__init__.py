"""Self-contained HTML pages with tables and interactive plots: the latency page of a table, and the page of a run."""
