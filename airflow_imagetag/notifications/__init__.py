"""Notifications of Airflow about runs."""
