"""Read and write media. The only package that imports av."""
