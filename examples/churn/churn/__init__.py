"""A model of customers who leave."""
