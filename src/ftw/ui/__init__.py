"""The application: the command line now; the server and the console will live here."""
