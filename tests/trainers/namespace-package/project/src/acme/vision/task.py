import acme

print("acme.vision in a", "namespace" if acme.__file__ is None else "package")
