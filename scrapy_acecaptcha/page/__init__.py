"""An HTML page without network: forms, images, addresses; private."""
