"""What the agent knows while traffic flows: windows, drift, alerts. See docs/monitoring.md."""
