"""The HTTP room: the daemon read, and told of events, over HTTP on loopback. Reads what others know; decides nothing."""
