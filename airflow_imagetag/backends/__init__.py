"""Private: SQL databases, object storages and the configuration, through Airflow."""
