"""Put image labels into a data warehouse from Apache Airflow."""

__version__ = "0.1.0"
