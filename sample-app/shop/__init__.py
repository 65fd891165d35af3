"""A small e-commerce API: products and orders in PostgreSQL, carts in Redis, Nginx in front."""
