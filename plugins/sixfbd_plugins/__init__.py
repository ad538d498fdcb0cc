"""The plugins that come with sixfbd: checks, notifiers and the shop's events. They use `sixfbd.plugin` as anybody's would."""
