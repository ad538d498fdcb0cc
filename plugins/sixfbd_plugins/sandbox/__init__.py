"""Doubles of providers as pure state machines: in process for tests, behind a port for whoever tries sixfbd without accounts."""
