"""Put image labels into a data warehouse from Apache Airflow."""

__all__ = ["__version__"]

__version__ = "0.1.0"
