"""Notifier plugins: one module per way to tell somebody. Each tries once; the engine's outbox repeats and gives up."""
