"""Deliberative search: retrieval, the agent and its environment, and what its confidence is worth."""
