"""Alerting as pure functions: alert states, routes, what is owed, and the decision of one round. No clock, no I/O."""
