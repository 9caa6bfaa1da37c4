"""What is said of a fit that is there: whether it is wrong, by how much at least, and how uncertain it is."""
