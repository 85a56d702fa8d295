"""Private: a model in this process, from a picture to labels. No Airflow, no storages."""
