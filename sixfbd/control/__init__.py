"""The control socket: JSON-RPC 2.0 over a local Unix socket, one object a line; what `sixfbctl` talks to."""
