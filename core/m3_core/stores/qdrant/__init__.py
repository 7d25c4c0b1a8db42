"""Documents in Qdrant with M3's representations; the only place that knows ``qdrant_client``."""
