"""HAT, the Headspace Ambient Transducer (layer 2): reads concepts from the residual stream and steers by them."""
