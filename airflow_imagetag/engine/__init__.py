"""The engine: many images through one account, concurrently and bounded. No Airflow import."""
