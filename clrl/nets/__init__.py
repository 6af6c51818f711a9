"""How a body's chain of layers becomes a net."""
