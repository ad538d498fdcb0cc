"""The routes for programs: health, metrics, events, alerts and Prometheus' query API; each module names its own in ROUTES."""
