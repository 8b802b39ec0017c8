"""Rating: which service a request is for, and what its units cost. Pure; integers only."""
