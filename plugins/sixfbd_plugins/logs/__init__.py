"""Reading logs: files and how they are followed, forms of lines, what they add up to, systemd's journal."""
