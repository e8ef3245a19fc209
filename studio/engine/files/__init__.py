"""Any file of rows that a person may have, read as it is."""
