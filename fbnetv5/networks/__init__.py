"""Networks that run a graph of blocks, with weights of their own or shared ones."""
