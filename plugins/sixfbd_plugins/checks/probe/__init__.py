"""One HTTP exchange: name, connection, TLS, request, redirects, body, each timed; and what failed in plain words."""
