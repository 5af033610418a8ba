"""The connection that says where jobs run, and as whom."""
