"""C++ kernels for the CPU and their binding; optional: without a compiler the package runs on torch alone."""
