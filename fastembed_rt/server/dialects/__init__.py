"""The bodies, answers and errors of each family of clients, as routes."""
