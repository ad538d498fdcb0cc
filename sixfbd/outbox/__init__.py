"""The outbox: what becomes of a message next (pure), how it reads, and the workers that hand it to notifiers."""
