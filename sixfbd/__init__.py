"""sixfbd: a monitoring daemon that notices within seconds, tells the right person once, and proves it afterwards."""

__version__ = "0.1.0"
