"""One pass of an outer step written out as a graph of tensor operations, and compiled by a process of its own."""
