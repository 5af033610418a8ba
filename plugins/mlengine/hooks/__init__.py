"""The connection type ``mlengine``: where jobs run, and with which credentials."""
