"""The trigger of a deferred wait. There is one trigger per job; triggers share pollers."""
