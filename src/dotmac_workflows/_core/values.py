import json
from typing import Any
class CodecType: ...
class Codec:
    def encode(self, value: dict[str, Any], path: str) -> str:
        return json.dumps(value, allow_nan=False)
    def decode(self, text: str) -> dict[str, Any]:
        return json.loads(text)
