"""C++ kernels for the CPU, called through jt.code, and the code that prepares their inputs."""
