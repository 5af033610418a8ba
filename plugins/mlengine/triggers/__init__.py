"""The deferred wait: one trigger a job, one poller for all of them."""
