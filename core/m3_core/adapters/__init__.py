"""What the frameworks' adapters have in common."""
