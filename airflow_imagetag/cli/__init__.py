"""Private: the command ``airflow-imagetag``; ``airflow imagetag`` from Airflow 3.2 on."""
