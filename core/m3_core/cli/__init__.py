"""The ``m3-retrieval`` command."""
