"""The architecture, and masked layers in it."""
