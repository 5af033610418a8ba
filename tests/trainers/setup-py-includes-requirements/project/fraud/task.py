import six

print("fraud with", six.__name__)
