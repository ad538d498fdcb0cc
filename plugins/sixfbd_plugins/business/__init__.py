"""What the shop's own events mean: their forms, and the metrics that are counted from them."""
