"""The formats of a call, byte by byte: its journal line, its columns, the view, the export and the CloudEvents.

Data written yesterday is read tomorrow, and others read what we send. A change here is a change of a public format.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest

from gateway.bulk.exports import schema_of
from gateway.control.record.lines import Batch
from gateway.journal.seal import sealed
from gateway.sinks.cloudevents import events
from gateway.store import Store
from gateway.store.export_batches import exported
from gateway.store.rows import calls
from gateway.store.rows.calls import Span, StoredCall
from gateway.store.rows.recorded import Recorded, RecordedCall
from gateway.store.schema import row_tables
from tests.gateway.control.builders import T0, WRITER
from tests.gateway.sinks.builders import sink

#: As a worker writes it: what many calls share first.
LINE = (
    '{"line":"call","route":"r","epoch":"e","period":3,"revision":7,"variant":"v","model":"m","version":"2",'
    '"role":"primary","by_unit":true,"latency_ms":12.5,"status":404,"fault":"client_error","retries":1,'
    '"predicted":true,"prediction":{"label":"é","p":[0.5,null]},"reported_version":"2b","items":["x","y"],'
    '"overhead_ms":0.25,"served":"w","id":"018bcfe5-6803-7000-8000-000000000003","at_ms":1700000000003,'
    '"reason":"unit","propensity":0.25,"unit":"u1","key":"loan-7","wrong":["no_feature:age"],"forced":true,'
    '"method":"PUT","request_id":"req-1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
    '"features":{"country":"de","n":1}}'
)
#: With what a line may not leave out, and no more.
SHORT = (
    '{"line":"call","route":"r","epoch":"e","period":3,"revision":7,"variant":"v","model":"m","version":"2",'
    '"role":"shadow","id":"018bcfe5-6804-7000-8000-000000000004","at_ms":1700000000004,"reason":"mirror",'
    '"propensity":null}'
)


def read(line: str) -> StoredCall:
    batch = Batch()
    assert batch.read([sealed(line.encode() + b"\n", 0)[:-1]], WRITER) == (1, [])
    [made] = batch.calls
    return made


def test_a_line_becomes_these_columns() -> None:
    whole, short = read(LINE), read(SHORT)
    assert tuple(whole.row) == WHOLE_ROW
    assert tuple(short.row) == SHORT_ROW


def test_the_view_shows_these_fields_in_this_order() -> None:
    assert orjson.dumps(calls.as_json(read(LINE))).decode() == WHOLE_VIEW
    assert orjson.dumps(calls.as_json(read(SHORT))).decode() == SHORT_VIEW


@pytest.mark.parametrize("texts", [False, True])
def test_the_export_has_these_fields_in_this_order(tmp_path: Path, texts: bool) -> None:
    async def story() -> bytes:
        store = await Store.open("sqlite", tmp_path)
        try:
            async with store.change() as connection:
                await calls.write(connection, [read(LINE), read(SHORT)])
            return b"".join([part.lines async for part in exported(store, Span("r", T0, T0 + 10), texts=texts)])
        finally:
            await store.close()

    assert asyncio.run(story()).decode() == (EXPORT_OF_TEXTS if texts else EXPORT)


def test_a_parquet_file_has_these_columns() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    assert [f"{one.name} {one.type}" for one in schema_of(pyarrow)] == PARQUET


def test_cloudevents_carry_these_fields_in_this_order() -> None:
    recorded = Recorded(calls=[RecordedCall(read(LINE), True), RecordedCall(read(SHORT), True)])
    assert [line.decode() for line in events(sink(), recorded, T0)] == EVENTS


def test_the_tables_have_these_columns() -> None:
    def described(table: Any) -> list[str]:
        return [f"{column.name} {column.type}{'' if column.nullable else ' NOT NULL'}" for column in table.columns]

    assert described(row_tables.shared_values) == SHARED_COLUMNS
    assert described(row_tables.calls) == OWN_COLUMNS
    assert [column.name for column in row_tables.PREDICTIONS.selected_columns] == VIEW_COLUMNS


WHOLE_ROW = (
    "018bcfe5-6803-7000-8000-000000000003",
    2222471169485272441,
    "r",
    1700000000003,
    "u1",
    "loan-7",
    12.5,
    0.25,
    '{"label":"é","p":[0.5,null]}',
    '{"features":{"country":"de","n":1},"reported_version":"2b","items":["x","y"],"request_id":"req-1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01","retries":1,"wrong":["no_feature:age"]}',
    None,
)
SHORT_ROW = (
    "018bcfe5-6804-7000-8000-000000000004",
    8172071965848272556,
    "r",
    1700000000004,
    None,
    None,
    None,
    None,
    None,
    None,
    None,
)
WHOLE_VIEW = (
    '{"id":"018bcfe5-6803-7000-8000-000000000003","at_ms":1700000000003,"route":"r","epoch":"e",'
    '"period":3,"revision":7,"variant":"v","model":"m","version":"2","role":"primary",'
    '"reason":"unit","propensity":0.25,"by_unit":true,"forced":true,"method":"PUT","status":404,'
    '"fault":"client_error","served":"w","unit":"u1","key":"loan-7","latency_ms":12.5,'
    '"overhead_ms":0.25,"predicted":true,"prediction":{"label":"é","p":[0.5,null]},'
    '"features":{"country":"de","n":1},"reported_version":"2b","items":["x","y"],'
    '"request_id":"req-1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
    '"retries":1,"wrong":["no_feature:age"],"shown":null,"open":false}'
)
SHORT_VIEW = (
    '{"id":"018bcfe5-6804-7000-8000-000000000004","at_ms":1700000000004,"route":"r","epoch":"e",'
    '"period":3,"revision":7,"variant":"v","model":"m","version":"2","role":"shadow",'
    '"reason":"mirror","propensity":null,"by_unit":false,"forced":false,"method":"POST",'
    '"status":null,"fault":null,"served":null,"unit":null,"key":null,"latency_ms":null,'
    '"overhead_ms":null,"predicted":false,"prediction":null,"features":null,"reported_version":null,'
    '"items":null,"request_id":null,"traceparent":null,"retries":0,"wrong":null,"shown":null,"open":false}'
)
EXPORT = (
    '{"id":"018bcfe5-6803-7000-8000-000000000003","at_ms":1700000000003,"route":"r","epoch":"e",'
    '"period":3,"revision":7,"variant":"v","model":"m","version":"2","role":"primary",'
    '"reason":"unit","propensity":0.25,"by_unit":true,"forced":true,"method":"PUT","status":404,'
    '"fault":"client_error","served":"w","unit":"u1","key":"loan-7","latency_ms":12.5,'
    '"overhead_ms":0.25,"predicted":true,"prediction":{"label":"é","p":[0.5,null]},'
    '"features":{"country":"de","n":1},"reported_version":"2b","items":["x","y"],'
    '"request_id":"req-1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
    '"retries":1,"wrong":["no_feature:age"],"shown":null,"open":false,"outcomes":[]}\n'
    '{"id":"018bcfe5-6804-7000-8000-000000000004","at_ms":1700000000004,"route":"r","epoch":"e",'
    '"period":3,"revision":7,"variant":"v","model":"m","version":"2","role":"shadow",'
    '"reason":"mirror","propensity":null,"by_unit":false,"forced":false,"method":"POST",'
    '"status":null,"fault":null,"served":null,"unit":null,"key":null,"latency_ms":null,'
    '"overhead_ms":null,"predicted":false,"prediction":null,"features":null,"reported_version":null,'
    '"items":null,"request_id":null,"traceparent":null,"retries":0,"wrong":null,"shown":null,"open":false,'
    '"outcomes":[]}\n'
)
EXPORT_OF_TEXTS = (
    '{"id":"018bcfe5-6803-7000-8000-000000000003","at_ms":1700000000003,"route":"r","epoch":"e",'
    '"period":3,"revision":7,"variant":"v","model":"m","version":"2","role":"primary",'
    '"reason":"unit","propensity":0.25,"by_unit":true,"forced":true,"method":"PUT","status":404,'
    '"fault":"client_error","served":"w","unit":"u1","key":"loan-7","latency_ms":12.5,'
    '"overhead_ms":0.25,"predicted":true,"prediction":"{\\"label\\":\\"é\\",\\"p\\":[0.5,null]}",'
    '"features":"{\\"country\\":\\"de\\",\\"n\\":1}","reported_version":"2b","items":["x","y"],'
    '"request_id":"req-1","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
    '"retries":1,"wrong":["no_feature:age"],"shown":null,"open":false,"outcomes":[]}\n'
    '{"id":"018bcfe5-6804-7000-8000-000000000004","at_ms":1700000000004,"route":"r","epoch":"e",'
    '"period":3,"revision":7,"variant":"v","model":"m","version":"2","role":"shadow",'
    '"reason":"mirror","propensity":null,"by_unit":false,"forced":false,"method":"POST",'
    '"status":null,"fault":null,"served":null,"unit":null,"key":null,"latency_ms":null,'
    '"overhead_ms":null,"predicted":false,"prediction":null,"features":null,"reported_version":null,'
    '"items":null,"request_id":null,"traceparent":null,"retries":0,"wrong":null,"shown":null,"open":false,'
    '"outcomes":[]}\n'
)
PARQUET = [
    "id string",
    "at timestamp[ms, tz=UTC]",
    "route string",
    "epoch string",
    "period int64",
    "revision int64",
    "variant string",
    "model string",
    "version string",
    "role string",
    "reason string",
    "propensity double",
    "by_unit bool",
    "forced bool",
    "method string",
    "status int64",
    "fault string",
    "served string",
    "unit string",
    "key string",
    "latency_ms double",
    "overhead_ms double",
    "predicted bool",
    "prediction string",
    "features string",
    "reported_version string",
    "items list<item: string>",
    "request_id string",
    "traceparent string",
    "retries int64",
    "wrong list<item: string>",
    "shown list<item: string>",
    "outcomes list<item: struct<metric: string, against: string, live: double, mature: double>>",
]
EVENTS = [
    (
        '{"specversion":"1.0","id":"018bcfe5-6803-7000-8000-000000000003.request",'
        '"source":"/turnout/routes/r","subject":"018bcfe5-6803-7000-8000-000000000003",'
        '"time":"2023-11-14T22:13:20.003Z","datacontenttype":"application/json","route":"r",'
        '"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
        '"data":{"prediction_id":"018bcfe5-6803-7000-8000-000000000003","route":"r","method":"PUT",'
        '"unit":"u1","key":"loan-7","features":{"country":"de","n":1},"request_id":"req-1"},'
        '"type":"turnout.request"}'
    ),
    (
        '{"specversion":"1.0","id":"018bcfe5-6803-7000-8000-000000000003.decision",'
        '"source":"/turnout/routes/r","subject":"018bcfe5-6803-7000-8000-000000000003",'
        '"time":"2023-11-14T22:13:20.003Z","datacontenttype":"application/json","route":"r",'
        '"variant":"v","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
        '"data":{"prediction_id":"018bcfe5-6803-7000-8000-000000000003","route":"r","epoch":"e",'
        '"period":3,"revision":7,"variant":"v","model":"m","version":"2","role":"primary",'
        '"propensity":0.25,"reason":"unit","by_unit":true,"forced":true},"type":"turnout.decision"}'
    ),
    (
        '{"specversion":"1.0","id":"018bcfe5-6803-7000-8000-000000000003.response.primary.v",'
        '"source":"/turnout/routes/r","subject":"018bcfe5-6803-7000-8000-000000000003",'
        '"time":"2023-11-14T22:13:20.015Z","datacontenttype":"application/json","route":"r",'
        '"variant":"v","traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",'
        '"data":{"prediction_id":"018bcfe5-6803-7000-8000-000000000003","route":"r","role":"primary",'
        '"variant":"v","model":"m","version":"2","status":404,"fault":"client_error","served":"w",'
        '"failed":true,"latency_ms":12.5,"overhead_ms":0.25,"predicted":true,"prediction":{"label":"é",'
        '"p":[0.5,null]},"items":["x","y"],"reported_version":"2b","retries":1,"shown":null},'
        '"type":"turnout.response"}'
    ),
    (
        '{"specversion":"1.0","id":"018bcfe5-6804-7000-8000-000000000004.response.shadow.v",'
        '"source":"/turnout/routes/r","subject":"018bcfe5-6804-7000-8000-000000000004",'
        '"time":"2023-11-14T22:13:20.004Z","datacontenttype":"application/json","route":"r",'
        '"variant":"v","data":{"prediction_id":"018bcfe5-6804-7000-8000-000000000004","route":"r",'
        '"role":"shadow","variant":"v","model":"m","version":"2","status":null,"fault":null,'
        '"served":null,"failed":false,"latency_ms":null,"overhead_ms":null,"predicted":false,'
        '"prediction":null,"items":null,"reported_version":null,"retries":0,"shown":null},"type":"turnout.response"}'
    ),
]
SHARED_COLUMNS = [
    "id BIGINT NOT NULL",
    "route TEXT NOT NULL",
    "epoch TEXT NOT NULL",
    "period BIGINT NOT NULL",
    "revision BIGINT NOT NULL",
    "variant TEXT NOT NULL",
    "model TEXT NOT NULL",
    "version TEXT NOT NULL",
    "role TEXT NOT NULL",
    "reason TEXT NOT NULL",
    "propensity FLOAT",
    "by_unit BOOLEAN NOT NULL",
    "forced BOOLEAN NOT NULL",
    "method TEXT NOT NULL",
    "status BIGINT",
    "fault TEXT",
    "served TEXT",
]
OWN_COLUMNS = [
    "id TEXT NOT NULL",
    "kin BIGINT NOT NULL",
    "route TEXT NOT NULL",
    "at_ms BIGINT NOT NULL",
    "unit TEXT",
    "key TEXT",
    "latency_ms FLOAT",
    "overhead_ms FLOAT",
    "prediction TEXT",
    "more TEXT",
    "open_by TEXT",
]
VIEW_COLUMNS = [
    "id",
    "at_ms",
    "route",
    "epoch",
    "period",
    "revision",
    "variant",
    "model",
    "version",
    "role",
    "reason",
    "propensity",
    "by_unit",
    "forced",
    "method",
    "status",
    "fault",
    "served",
    "unit",
    "key",
    "latency_ms",
    "overhead_ms",
    "prediction",
    "more",
    "open",
]
