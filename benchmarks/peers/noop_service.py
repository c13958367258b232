"""`lsan serve` whose recommendations are always the same, made beforehand: what is left is HTTP, JSON and all else that
is not the model.

    python noop_service.py FILE --port 8000 --workers 2
"""

import sys

from lsan.cli import main
from lsan.serving.app import Endpoints
from lsan.serving.messages import Question

_PIECE = b'{"id":1000,"title":"1000","category":null,"score":3.1415927410125732}'
_ANSWER = b'{"items":[%s],"unknown_ids":[],"by_popularity":false,"model":"0123456789abcdef"}' % b",".join([_PIECE] * 10)


async def recommend(_self: Endpoints, question: Question) -> bytes:
    """Ten items."""
    return _ANSWER


setattr(Endpoints, "recommend", recommend)  # noqa: B010  # in the workers too, which import this file

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
