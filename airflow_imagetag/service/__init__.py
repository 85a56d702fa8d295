"""Public: import paths of version 0.1.0, which keep working.

New code imports from ``airflow_imagetag.services``; ``sign`` stays in
``airflow_imagetag.service.signature``.
"""
