"""What the `sms` check, the `sms` notifier and the inbound webhooks of kind `twilio` share: Twilio's API, its numbers and texts."""
