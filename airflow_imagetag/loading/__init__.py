"""Images within the limits of a service: checked before they are sent, made smaller if asked."""
