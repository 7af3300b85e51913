"""``reptile demo``: a page on this machine where people draw symbols of their own and watch the network learn them."""
