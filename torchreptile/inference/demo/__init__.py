"""``reptile demo``: a local web page to draw symbols and watch a network adapt to them."""
