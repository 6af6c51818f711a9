"""clrl: agents that keep learning. Nothing heavy is imported here."""

__version__ = "0.1.0"
