"""Check plugins: one module per kind (`system`, `webhook`, `scrape`), their parts in the packages beside them."""
