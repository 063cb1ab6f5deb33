"""Networks: what runs a graph of blocks, alone or with shared weights."""
