"""The HTTP routers will live here."""
