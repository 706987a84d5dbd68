"""Alerts: rules over what is known of the fleet, and the ways to tell people."""
