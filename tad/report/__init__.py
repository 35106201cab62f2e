import logging

# Without a home folder, or with one that cannot be written, matplotlib works and warns at each import.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
