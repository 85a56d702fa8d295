"""One quota for all workers: ledgers of slots in Redis or in an SQL database."""
