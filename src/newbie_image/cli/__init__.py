"""The command line: thin readers of what the packages below do. Only here anything is printed."""
