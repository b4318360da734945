"""Passes connections on: python forward.py FROM_HOST FROM_PORT TO_PORT.

The address of the Python worker pool is an option of the whole job, the same for all task managers: in a cluster, each
machine has its own pool at its own ``localhost``. Task managers that share one machine must not share a pool, because
they number their workers alike and would stop each other's. So each of them resolves the pool's host name to a loopback
address of its own, and this program listens there.
"""

import asyncio
import contextlib
import sys


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    writer.close()


async def main(from_host: str, from_port: str, to_port: str) -> None:
    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("localhost", int(to_port))
        await asyncio.gather(_copy(reader, to_writer), _copy(to_reader, writer))

    server = await asyncio.start_server(forward, from_host, int(from_port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
