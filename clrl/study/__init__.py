"""Answers from run folders: reads files, never live objects."""
