"""Private: how our objects appear to Airflow: templates, descriptions, the connection form."""
