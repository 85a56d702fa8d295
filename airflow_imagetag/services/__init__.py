"""Wire protocols: build a request, read an answer, classify an error. No I/O and no Airflow."""
