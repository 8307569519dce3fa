"""The HTTP API: routes, their wire formats, and who may call them. The routes hold no logic of their own."""
