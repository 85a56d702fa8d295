"""Airflow hooks: one service account, one image in, its labels out."""
