"""Twilio: what check and notifier ask fits Twilio's document, and what the double answers is what the document says.

Messaging services are not in the document; `twilio_messaging_v1.json` is ours, written from Twilio's documentation. Neither
has error answers: ERROR is theirs (https://www.twilio.com/docs/usage/twilios-response#response-formats-exceptions).
"""

import httpx
import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sixfbd.model import Message
from sixfbd.plugin import HOUR, MessageId, Notification, PermanentFailure, Secret, Severity, TemporaryFailure
from sixfbd_plugins.checks.sms import SmsCheck, SmsOptions
from sixfbd_plugins.notifiers.sms import SmsNotifier, SmsNotifierOptions
from sixfbd_plugins.sandbox.faults import Fault
from sixfbd_plugins.sandbox.twilio import SandboxMessage, Step
from tests.contract.documents import Exchange
from tests.integration.twilio.conftest import Kit
from tests.provider_kit import InProcess, ManualClock, PluginContext, Reader

PROVIDER = "twilio"
ERROR = {
    "type": "object",
    "properties": {
        "code": {"type": "integer"}, "message": {"type": "string"}, "more_info": {"type": "string"},
        "status": {"type": "integer"},
    },
    "required": ["code", "message", "more_info", "status"],
    "additionalProperties": False,
}  # fmt: skip
OF_ACCOUNT = "/2010-04-01/Accounts/{AccountSid}"
ASKED = {
    "GET /2010-04-01/Accounts/{Sid}.json", f"GET {OF_ACCOUNT}/Balance.json", f"GET {OF_ACCOUNT}/IncomingPhoneNumbers.json",
    f"GET {OF_ACCOUNT}/Messages.json", f"POST {OF_ACCOUNT}/Messages.json", "GET /v1/Services/{Sid}",
    "GET /v1/Services/{ServiceSid}/PhoneNumbers", "GET /v1/Services/{ServiceSid}/ShortCodes",
    "GET /v1/Services/{ServiceSid}/AlphaSenders",
}  # fmt: skip
TEST_SID = "AC" + "9" * 32
CANARY = "+1-352-555-0199"
CALLBACK = "https://hooks.example.com/webhooks/twilio?shop=1"
STATUSES = ("sent", "delivered", "undelivered", "failed", "canceled", "read", "received", "scheduled", "accepted")

pytestmark = pytest.mark.xdist_group("providers")  # one Prism for each, of all of them


credentials = Kit.credentials


def api_key(**changes):
    return {"account_sid": Kit.ACCOUNT, "api_key": Kit.KEY, "api_secret": Secret(Kit.KEY_SECRET, "env S"), **changes}


def checks(**options):
    """Options of checks that between them ask all that a check can."""
    tried = {"test_account_sid": TEST_SID, "test_auth_token": Secret("test-token", "env T"), **options}
    yield SmsOptions(**credentials(from_number=Kit.SENDER, canary=CANARY, notifier="twilio", **tried))
    yield SmsOptions(**api_key(messaging_service_sid=Kit.SERVICE, canary=CANARY, **options))


def notifiers(**options):
    more = {"status_callback": CALLBACK, "rate": 1000.0, **options}
    yield SmsNotifierOptions(**credentials(from_number=Kit.SENDER, **more))
    yield SmsNotifierOptions(**api_key(messaging_service_sid=Kit.SERVICE, **more))
    yield SmsNotifierOptions(**credentials(from_number="WORKSHOP", rate=1000.0, **options))


def notification(name, **changes):
    values = {
        "id": MessageId(name), "receiver": "primary", "address": "+1 (352) 555-0101", "status": "firing",
        "severity": Severity.HIGH, "title": "[FIRING] ≥ 3 & <b>—ж🚨</b>", "text": "long",
    }  # fmt: skip
    return Notification(**(values | changes))


def test_a_request_that_does_not_fit_the_document_is_noticed(contract):
    def asked(method, path, content=b""):
        headers = {"authorization": "Basic eDp5", "content-type": "application/x-www-form-urlencoded"}
        return Exchange(httpx.Request(method, f"http://x{path}", headers=headers, content=content), None)

    messages = f"/2010-04-01/Accounts/{Kit.ACCOUNT}/Messages.json"
    assert contract.requests([asked("GET", f"{messages}?PageSize=50&DateSent%3E=2026-10-23T00%3A00%3A00Z")]) == []
    for wrong, words in (
        (asked("GET", f"{messages}?PageSize=many"), "pagesize must be integer"),
        (asked("GET", f"{messages}?Pagesize=50"), "query Pagesize"),
        (asked("POST", messages, b"From=%2B1352"), "must have required property 'To'"),
        (asked("POST", messages, b"To=%2B1352&Mesage=x"), "body Mesage"),
        (asked("GET", messages.replace(Kit.ACCOUNT, "AC1")), "must NOT have fewer than 34 characters"),
        (asked("GET", "/2010-04-01/Acounts"), "no operation GET /2010-04-01/Acounts"),
        (asked("PUT", messages, b"To=%2B1352"), "no operation PUT"),
    ):
        assert any(words in fault for fault in contract.requests([wrong])), contract.requests([wrong])


def test_an_answer_that_is_not_as_the_document_says_is_noticed(contract):
    def answered(body, status=200):
        request = httpx.Request("GET", f"http://x/2010-04-01/Accounts/{Kit.ACCOUNT}/Balance.json")
        return contract.answers([Exchange(request, httpx.Response(status, json=body))])

    fine = {"account_sid": Kit.ACCOUNT, "balance": "1.00", "currency": None}
    assert answered(fine) == []
    assert answered({**fine, "balance": 1.0}) == [
        f"GET {OF_ACCOUNT}/Balance.json 200: balance: 1.0 is not of type 'string', 'null'"
    ]
    assert answered({**fine, "account_sid": "AC1"})[0].endswith("'^AC[0-9a-fA-F]{32}$'")
    assert answered({**fine, "amount": "1"}) == [f"GET {OF_ACCOUNT}/Balance.json 200: amount is not named"]
    assert answered({"balance": "1", "currency": "USD"}) == [
        f"GET {OF_ACCOUNT}/Balance.json 200: account_sid is missing"
    ]
    assert answered(fine, 201) == [f"GET {OF_ACCOUNT}/Balance.json: 201 is no answer of it"]


async def test_check_and_notifier_read_the_answers_of_the_document_itself(contract, wire, listening):
    """Its examples, as Prism answers with; a message is listed in them for ever, so that looking it up reads 200."""
    heard = listening(wire)
    context = PluginContext(heard, ManualClock(1_800_000_000.0))
    for options in checks(base_url=contract.url):
        report = await SmsCheck(options, context).run(None)
        assert report.reachable, report.summary
        assert "documented" not in report.summary
    for options in notifiers(base_url=contract.url):
        notifier = SmsNotifier(options, context)
        receipt = await notifier.deliver(notification("m-1"))
        assert (receipt.state, receipt.provider_id[:2]) == ("accepted", "SM")
    assert await notifier.lookup(notification("m-1")) is None
    assert contract.requests(heard.exchanges) == []
    assert contract.asked(heard.exchanges) >= {one for one in ASKED if "2010" in one}


async def life(listening):
    """Live through what check and notifier can meet at the double; return what was said."""
    clock = ManualClock(1_800_000_000.0)
    plans = {
        "+13525550101": (Step(1.0, "sent"), Step(3.0, "delivered")),
        "+13525550102": (Step(1.0, "sent"), Step(3.0, "undelivered", 30007)),
        "+13525550103": (Step(0.0, "failed", 30034),),
        "+13525550199": (),
    }
    double = Kit.double(clock.now, plan=lambda to: plans[to])
    double.add_key(TEST_SID, "test-token")
    for number in range(510):  # more than a page of an hour
        at = clock.at - 3 * HOUR + number
        steps = (
            Step(1.0, "sent"),
            Step(2.0, ("delivered", "undelivered", "failed")[number % 3], (None, 30003, 21610)[number % 3]),
        )
        double.add(
            SandboxMessage(
                sid=double.new_sid("SM" if number % 2 else "MM"), to="+13525550102", from_=Kit.SENDER, body="tickets",
                created_at=at, updated_at=at, steps=steps,
            )
        )  # fmt: skip
    own = Message(
        id=MessageId("m-1"), target=("primary", "twilio", ""), state="accepted", created_at=clock.at - 60, expires_at=2e9,
        obligations=(), provider_id=None,
    )  # fmt: skip
    heard = listening(InProcess(double))
    context = PluginContext(heard, clock, Reader((own,)))
    made = [SmsNotifier(options, context) for options in notifiers()]
    double.numbers["WORKSHOP"] = dict(double.numbers[Kit.SENDER])
    faults = [
        [], [Fault(lost=True)], [Fault(error=429, code=20429, retry_after_s=7)], [Fault(error=503)], [Fault(silent=True)],
        [Fault(error=400, code=21610)], [Fault(error=401, code=20003)],
    ]  # fmt: skip
    for number, on in enumerate(faults):
        double.faults = on
        for notifier in made:
            for place, to in enumerate([*list(plans)[:3], "+15005550001"]):
                said = notification(f"m-{number}-{place}", address=to, attempt=1 + number)
                for ask in (notifier.deliver, notifier.lookup):
                    try:
                        await ask(said)
                    except (TemporaryFailure, PermanentFailure):
                        continue
        clock.at += 60
    double.faults = []
    await read(SmsCheck(SmsOptions(**credentials(history=5 * HOUR)), context))
    for service in (Kit.SERVICE, "MG" + "1" * 32, "MG" + "2" * 32):
        double.services["MG" + "2" * 32] = ()
        await read(SmsCheck(SmsOptions(**credentials(messaging_service_sid=service, read_log=False)), context))
    for on in faults:
        for options in checks(history=HOUR):
            double.faults = on
            await read(SmsCheck(options, context))
            double.faults = []
            clock.at += HOUR
            await read(SmsCheck(options, context))
    double.status = "suspended"
    await read(SmsCheck(SmsOptions(**credentials()), context))
    return heard.exchanges


async def read(check):
    """Run a check until it has read what there is."""
    report = await check.run(None)
    while report.more:
        report = await check.run(report.cursor)


async def test_all_that_check_and_notifier_ask_in_a_life_fits_and_so_do_the_answers(contract, listening):
    exchanges = await life(listening)
    assert contract.asked(exchanges) == ASKED
    assert contract.requests(exchanges) == []
    assert deviations(contract, exchanges) == []
    assert {exchange.answer.status_code for exchange in exchanges if exchange.answer is not None} >= {
        200, 201, 400, 401, 404, 429, 503,
    }  # fmt: skip
    pages = [exchange for exchange in exchanges if "PageToken" in exchange.request.url.params]
    assert pages, "pages were turned"


def deviations(contract, exchanges):
    """Errors by ERROR, all others by the document."""
    fine = [one for one in exchanges if one.answer is None or one.answer.status_code < 400]
    wrong = [one.answer for one in exchanges if one.answer is not None and one.answer.status_code >= 400]
    judge = jsonschema.Draft202012Validator(ERROR)
    return [
        *contract.answers(fine),
        *(f"{answer.status_code}: {error.message}" for answer in wrong for error in judge.iter_errors(answer.json())),
        *(f"{answer.status_code}: {answer.json()['status']}" for answer in wrong if answer.json()["status"] != answer.status_code),
    ]  # fmt: skip


SENDERS = st.sampled_from([Kit.SENDER, "+13525550177", "+15005550006", "+15005550007", ""])
STEPS = st.lists(
    st.tuples(st.floats(0, 100), st.sampled_from(STATUSES), st.sampled_from([None, 30007, 30034])), max_size=3
).map(lambda steps: tuple(Step(*step) for step in sorted(steps, key=lambda one: one[0])))
CREATE = st.fixed_dictionaries(
    {"To": st.sampled_from(["+13525550101", "+15005550001", "x", ""]), "Body": st.sampled_from(["", "x", "ж" * 1601])},
    optional={"From": SENDERS, "MessagingServiceSid": st.sampled_from([Kit.SERVICE, "MG" + "1" * 32])},
)
LIST = st.fixed_dictionaries(
    {},
    optional={
        "PageSize": st.sampled_from(["1", "2", "1000", "5000"]), "To": st.just("+13525550101"), "From": SENDERS,
        "DateSent>": st.sampled_from(["2027-01-15", "2027-01-15T08:00:00Z"]), "DateSent<": st.just("2027-01-15T08:01:00Z"),
        "Page": st.just("1"), "PageToken": st.sampled_from(["", "PA1"]),
    },
)  # fmt: skip
FAULTS = st.lists(
    st.builds(Fault, error=st.sampled_from([0, 401, 403, 429, 500, 503]), code=st.sampled_from([0, 20003]),
        retry_after_s=st.sampled_from([0, 5])),
    max_size=1,
)  # fmt: skip
DEEDS = st.one_of(
    st.tuples(st.just("create"), CREATE),
    st.tuples(st.just("list"), LIST),
    st.tuples(st.just("get"), st.sampled_from([".json", "/Balance.json", "/IncomingPhoneNumbers.json", "/Messages/SM1.json"])),
    st.tuples(st.just("fetch"), st.integers(0, 9)),
    st.tuples(st.just("service"), st.sampled_from(["", "/PhoneNumbers", "/ShortCodes", "/AlphaSenders"])),
    st.tuples(st.just("wait"), st.floats(0, 100)),
    st.tuples(st.just("status"), st.sampled_from(["active", "suspended", "closed"])),
    st.tuples(st.just("faults"), FAULTS),
    st.tuples(st.just("came"), STEPS),
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(deeds=st.lists(DEEDS, min_size=1, max_size=25), plan=STEPS)
def test_whatever_happens_the_double_answers_as_the_document_says(contract, deeds, plan):
    at = [1_800_000_000.0]
    double = Kit.double(lambda: at[0], plan=lambda to: plan)
    account = f"/2010-04-01/Accounts/{Kit.ACCOUNT}"
    basic = next(httpx.BasicAuth(Kit.ACCOUNT, Kit.TOKEN).sync_auth_flow(httpx.Request("GET", "http://x")))
    authorization = {"authorization": basic.headers["authorization"]}
    exchanges = []

    def ask(method, path, query=None, form=None):
        request = httpx.Request(method, f"http://x{path}", params=query, headers=authorization, data=form)
        answer = double.handle(method, path, query or {}, dict(request.headers), request.content)
        made = httpx.Response(answer.status, headers=answer.headers, content=answer.body)
        exchanges.append(Exchange(request, made))
        return made.json()

    for deed, value in deeds:
        match deed:
            case "create":
                ask("POST", f"{account}/Messages.json", form=value)
            case "list":
                page = ask("GET", f"{account}/Messages.json", value)
                if onward := page.get("next_page_uri"):
                    ask("GET", httpx.URL(onward).path, dict(httpx.URL(onward).params))
            case "get":
                ask("GET", f"{account}{value}")
            case "fetch":
                for sid in list(double.messages)[value : value + 1]:
                    ask("GET", f"{account}/Messages/{sid}.json")
            case "service":
                ask("GET", f"/v1/Services/{Kit.SERVICE}{value}")
            case "wait":
                at[0] += value
            case "status":
                double.status = value
            case "faults":
                double.faults = value
            case "came":
                message = SandboxMessage(
                    sid=double.new_sid("MM"), to=Kit.SENDER, from_="+13525550101", body="STOP", direction="inbound",
                    status="received", created_at=at[0], updated_at=at[0], steps=value,
                )  # fmt: skip
                double.add(message)
    assert deviations(contract, exchanges) == []
