"""The journal: journal.db (events and decisions, durable) and samples.db (measurements, disposable)."""
