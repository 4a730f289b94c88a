"""Networks: the exact base network, super-resolution models, and the registry that finds them by hash."""
