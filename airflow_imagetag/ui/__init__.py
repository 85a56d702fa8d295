"""Private: the pages that show labels, as one file and in Airflow's UI."""
