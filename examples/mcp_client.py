"""Call the tools of an app that runs with GRADIO_MCP_SERVER=True: python examples/mcp_client.py [address]"""

import asyncio
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(address: str) -> None:
    """Lists the tools, and asks one question by beam search."""
    url = f"{address.rstrip('/')}/gradio_api/mcp/"
    async with streamablehttp_client(url) as (read, write, _), ClientSession(read, write) as session:
        await session.initialize()
        for tool in (await session.list_tools()).tools:
            print(f"{tool.name}: {tool.description}")
        asked = {"messages": "Tell me a story about an owl.", "strategy": "beams", "max_new_tokens": 60}
        answer = await session.call_tool("chat", asked)
        print("".join(part.text for part in answer.content if part.type == "text"))


if __name__ == "__main__":
    asyncio.run(main((sys.argv[1:] or ["http://127.0.0.1:7860"])[0]))
