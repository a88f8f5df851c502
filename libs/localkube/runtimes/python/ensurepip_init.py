"""pip is always there in a container that Ferroflow runs."""


def version():
    return "@VERSION@"


def bootstrap(*, root=None, upgrade=False, user=False, altinstall=False, default_pip=False, verbosity=0):
    pass


def _main(argv=None):
    print("Requirement already satisfied: pip (@VERSION@)")
    return 0
