"""E-mail as the notifier, the check and the inbound `sendgrid` share it: through SendGrid's API, or through an SMTP server."""
