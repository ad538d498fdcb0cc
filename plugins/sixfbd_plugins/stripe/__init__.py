"""Stripe: its API over our way out, what its events say, and what becomes of payments."""
