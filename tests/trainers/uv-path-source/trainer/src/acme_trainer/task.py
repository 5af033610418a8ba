import acme_shared_library

print("trainer with library", acme_shared_library.VERSION)
