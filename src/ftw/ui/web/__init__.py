"""The browser console (static files) will live here."""
