"""The daemon in simulated time, for tests and simulations: its own parts on a clock that jumps. The daemon never imports it."""
