"""How good a student is, whether prototypes agree with parts, and what a prototype does."""
