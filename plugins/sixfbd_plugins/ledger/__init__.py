"""The ledger: tickets taken from stock, payments that succeeded and confirmations that arrived, matched by order."""
