"""PostgreSQL's statements by Cloud SQL's executeSql, for whoever has no way to the private address."""

import json
import re
from collections.abc import Mapping
from typing import Any

from psycopg.sql import SQL, Composed, Literal

from tasks.clients.cloud_sql import CloudSqlClient

PARAMETER = re.compile(r"%\((\w+)\)s")


class ExecuteSql:
    """Sends each statement once, its parameters written into it: the API takes none. Rows come as JSON, so that they keep their types."""

    def __init__(self, client: CloudSqlClient) -> None:
        self._client = client

    async def read(self, query: SQL | Composed, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of a statement that changes nothing; repeated where its reply was lost."""
        return await self._rows(query, params, changes=False)

    async def change(self, query: SQL | Composed, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Rows of a statement that changes something."""
        return await self._rows(query, params, changes=True)

    async def _rows(self, query: SQL | Composed, params: Mapping[str, Any], *, changes: bool) -> list[dict[str, Any]]:
        statement = f"SELECT to_jsonb(answer)::text AS answer FROM ({written(query, params)}) AS answer"  # noqa: S608 - all is quoted
        return [json.loads(row["answer"]) for row in await self._client.execute(statement, changes=changes)]


def written(query: SQL | Composed, params: Mapping[str, Any]) -> str:
    """The statement with its parameters as literals."""
    return PARAMETER.sub(lambda found: Literal(params[found[1]]).as_string(None), query.as_string(None))
