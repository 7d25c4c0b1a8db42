"""Documents in an engine: what both frameworks' stores share."""
