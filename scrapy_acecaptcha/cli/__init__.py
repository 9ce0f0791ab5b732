"""The command line and `probe`; private: what users type is the command `acecaptcha`."""
