"""Write targets: encode derained planes, copy packets, mux containers and images."""
