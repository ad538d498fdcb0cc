"""What the `scrape` check needs of Prometheus: its text formats and its relabelling. Pure."""
