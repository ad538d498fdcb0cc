"""Templates of messages in a daemon: they apply, a reload takes over new ones, and a wrong one changes nothing."""


def titles(receiver):
    return [payload["title"] for payload in receiver.payloads()]


def test_messages_read_as_their_templates_say_and_a_wrong_one_is_refused_at_a_reload(daemon, receiver, wait):
    templates = daemon.directory / "templates"
    templates.mkdir()
    (templates / "notice@webhook.title.j2").write_text("{{ site }} says: {{ notice.text|truncate(20) }}")
    daemon.tell(receiver.url)
    daemon.start()
    assert daemon.run_ctl("notify", "test", "primary").returncode == 0
    assert titles(receiver) == ["workshop says: Test: sixfbd can re…"]
    (templates / "notice.title.j2").write_text("{{ notice.txt }}")
    refused = daemon.run_ctl("reload")
    assert refused.returncode != 0
    assert "templates/notice.title.j2: line 1: on the preview's data: there is no 'txt' here" in refused.stderr
    (templates / "notice.title.j2").unlink()
    (templates / "notice@webhook.title.j2").write_text("{{ 1 / (notice.text|length - notice.text|length) }}")
    assert daemon.run_ctl("reload").returncode != 0, "what fails on the preview's data is refused too"
    (templates / "notice@webhook.title.j2").write_text(
        "{{ notice.data.orderId[0] if notice.data.orderId else 'test' }}"
    )
    assert "templates" in daemon.run_ctl("reload").stdout
    assert daemon.run_ctl("notify", "test", "primary").returncode == 0
    assert titles(receiver)[-1] == "test"
