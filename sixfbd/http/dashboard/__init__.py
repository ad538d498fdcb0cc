"""The page for people: one view of the daemon, rendered on the server, readable without JavaScript, updated live."""
