"""The journal as an HTML page; private."""
