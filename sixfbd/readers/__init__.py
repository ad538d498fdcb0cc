"""What everybody reads of the engine: queries, /metrics, health, and the two views of it, for HTTP and for the control socket."""
