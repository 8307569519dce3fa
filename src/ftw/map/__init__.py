"""MAP, the Mindmeld Architectural Protocol (layer 3): the concepts, the packs that hold them, and their training."""
