"""Private: labels many images within one quota, concurrently and bounded. No Airflow import."""
