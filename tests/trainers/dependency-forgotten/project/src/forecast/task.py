import iniconfig

print(iniconfig)
