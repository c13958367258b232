"""How types are checked while tests run: by beartype, with an int where a float is asked for, as static checkers do."""

from beartype import BeartypeConf, beartype

check = beartype(conf=BeartypeConf(is_pep484_tower=True))
