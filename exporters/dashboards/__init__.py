"""Grafana dashboards as code: `python -m exporters.dashboards` writes the JSON beside these modules.

Only for those who change a dashboard: nothing of this is imported by the guard or lies in the wheel.
"""
