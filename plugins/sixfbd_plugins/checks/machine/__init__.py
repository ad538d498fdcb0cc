"""What the `system` check reads of the machine: its parts block, are run in threads, and know nothing of checks."""
