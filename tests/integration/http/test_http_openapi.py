"""The description of the room is complete: every rule of the app, every method, every parameter."""

import re

import pytest

from sixfbd.http.app import make_app


@pytest.fixture
async def document(client):
    return (await client.get("/openapi.json")).json()


async def test_every_rule_of_the_app_is_described_with_its_methods(engine, http_config, document):
    for rule in make_app(engine, http_config).url_map.iter_rules():
        path = re.sub(r"<(\w+)>", r"{\1}", rule.rule)
        described = {method.upper() for method in document["paths"][path]}
        assert (rule.methods or set()) - {"HEAD"} <= described, path


async def test_every_operation_has_a_summary_a_unique_id_its_path_parameters_and_its_errors(document):
    ids = []
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            ids.append(operation["operationId"])
            assert operation["summary"]
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path))
            assert all(one["required"] for one in operation["parameters"] if one["in"] == "path")
            assert {"400", "401", "403", "405", "421", "500", "503"} <= set(operation["responses"])
            if method == "post":
                assert {"408", "413", "415"} <= set(operation["responses"])
                assert operation["requestBody"]["content"]
            assert all(answer["description"] for answer in operation["responses"].values())
    assert len(ids) == len(set(ids))


async def test_every_reference_leads_somewhere(document):
    references = re.findall(r"'\$ref': '#/components/schemas/([^']+)'", str(document))
    assert references
    assert set(references) <= set(document["components"]["schemas"])


async def test_writes_need_a_token_and_reads_may_come_without(document):
    assert document["paths"]["/api/events"]["post"]["security"] == [{"token": ["events"]}]
    assert document["paths"]["/api/alerts/{id}/ack"]["post"]["security"] == [{"token": ["alerts"]}]
    assert {} in document["paths"]["/api/events"]["get"]["security"]


async def test_the_form_of_an_event_is_described_from_the_type_that_reads_it(document):
    content = document["paths"]["/api/events"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "application/x-ndjson"}
    event = document["components"]["schemas"]["EventIn"]
    assert set(event["properties"]) == {"id", "type", "timestamp", "data"}
    assert event["required"] == ["type"]
