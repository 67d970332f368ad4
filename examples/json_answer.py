"""Get an answer that is an object of a schema, from any model: python examples/json_answer.py [address]"""

import json
import sys
from typing import Any

from openai import OpenAI

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
}


def ask(address: str, question: str) -> Any:
    """The object."""
    client = OpenAI(base_url=f"{address.rstrip('/')}/v1", api_key="none")
    answer = client.chat.completions.create(
        model="budgie",
        messages=[{"role": "user", "content": question}],
        response_format={"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
    )
    return json.loads(answer.choices[0].message.content or "")


if __name__ == "__main__":
    print(ask((sys.argv[1:] or ["http://127.0.0.1:7860"])[0], "My name is Mia, and I am 7 years old. Who am I?"))
