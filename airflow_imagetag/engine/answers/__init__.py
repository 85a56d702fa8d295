"""Private: answers for equal bytes, within a run and from earlier runs."""
