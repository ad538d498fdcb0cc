"""Sending samples on to Prometheus and what speaks its remote write."""
