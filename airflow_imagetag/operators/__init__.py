"""Airflow operators that label many images."""
