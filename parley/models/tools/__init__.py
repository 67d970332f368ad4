"""How models call tools."""
