"""Documents in memory: what both frameworks' stores and retrievers share."""
