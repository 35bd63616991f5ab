"""What leaves for Prometheus: collectors, dashboards, alerts.  Reads counters, decides nothing."""
