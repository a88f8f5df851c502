import os
import sys

sys.stdout.flush()
os.execv(@EXECUTABLE@, [@EXECUTABLE@, "--ferroflow-venv", sys.prefix, *sys.argv[1:]])
