"""Inverted lists over lexical weights."""
