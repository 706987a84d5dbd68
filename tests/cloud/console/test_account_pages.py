"""The pages as people of each role see them."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.browser.sample_data import SampleClock, fill
from tests.cloud.console.plant import Plant
from tests.cloud.console.test_pages import NOW_MS, PAGES, _Checker
from tests.cloud.folk import another, person, sign_in
from tests.cloud.serving import serving

OPEN_ROLLOUT = "/rollouts/spoken_digits-1.1.0-5f3a1c"
DEVICE, DECISION = "/devices/box-1", "/devices/box-1/decisions/box-1-1/1"
ACCOUNTS = ("/account", "/people")


@pytest.fixture(scope="module")
def browsers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx.Client]]:
    """A browser of each role, and one of nobody."""
    folder: Path = tmp_path_factory.mktemp("roles")
    fill(folder, now_ms=NOW_MS, pictures=6, span_s=600)
    plant = Plant(folder, SampleClock(NOW_MS))
    with serving(plant.services, headers={"accept": "text/html"}) as nobody:
        opened = {"nobody": nobody}
        for role in ("viewer", "reviewer", "operator", "admin"):
            person(plant.services, f"the-{role}", role)
            with another(nobody) as made:
                client = httpx.Client(base_url=made.base_url, trust_env=False, headers={"accept": "text/html"})
            assert sign_in(client, f"the-{role}").status_code == 303
            opened[role] = client
        yield opened
        for client in opened.values():
            client.close()
    plant.close()


@pytest.mark.parametrize("path", [*PAGES, *ACCOUNTS, "/login", "/nothing"])
def test_page_is_whole_and_says_who_is_signed_in(browsers: dict[str, httpx.Client], path: str) -> None:
    answer = browsers["admin"].get(path)
    assert answer.status_code == (404 if path == "/nothing" else 200)
    checker = _Checker()
    checker.feed(answer.text)
    assert checker.wrong == []
    assert len(checker.ids) == len(set(checker.ids))
    assert ("the-admin</a>" in answer.text) == (path != "/login")


def test_buttons_and_links_that_a_role_may_not_use_are_not_shown(browsers: dict[str, httpx.Client]) -> None:
    seen = {role: client.get(OPEN_ROLLOUT).text for role, client in browsers.items() if role != "nobody"}
    assert [role for role, text in seen.items() if 'data-dialog="abort"' in text] == ["operator", "admin"]
    assert [role for role, text in seen.items() if "data-post=" in text] == ["operator", "admin"]
    assert [role for role, text in seen.items() if 'href="/review"' in text] == ["reviewer", "operator", "admin"]
    assert [role for role, text in seen.items() if 'href="/people"' in text] == ["admin"]


def test_viewer_is_shown_no_picture_and_told_why(browsers: dict[str, httpx.Client]) -> None:
    for path in (DEVICE, DECISION, "/"):
        assert "/v1/inputs/" not in browsers["viewer"].get(path).text
    assert "/v1/inputs/" in browsers["reviewer"].get(DEVICE).text
    assert "for reviewers" in browsers["viewer"].get(DEVICE).text


def test_page_beyond_ones_role_says_what_is_missing(browsers: dict[str, httpx.Client]) -> None:
    page = browsers["viewer"].get("/review")
    assert (page.status_code, page.headers["content-type"].partition(";")[0]) == (403, "text/html")
    assert "This is for the role reviewer; the-viewer is viewer." in page.text
    assert "people role the-viewer reviewer" in page.text
    assert "<nav" in page.text


def test_unchanged_page_of_one_person_is_not_that_of_another(browsers: dict[str, httpx.Client]) -> None:
    tag = browsers["viewer"].get("/").headers["etag"]
    assert browsers["viewer"].get("/", headers={"if-none-match": tag}).status_code == 304
    assert browsers["admin"].get("/", headers={"if-none-match": tag}).status_code == 200


def test_who_signs_in_comes_back_to_the_page_that_was_asked_for(browsers: dict[str, httpx.Client]) -> None:
    nobody = browsers["nobody"]
    sent = nobody.get(f"{DEVICE}?only=defer")
    assert (sent.status_code, sent.headers["location"]) == (303, f"/login?next={DEVICE}%3Fonly%3Ddefer")
    assert f'value="{DEVICE}?only=defer"' in nobody.get(sent.headers["location"]).text
    with another(nobody) as browser:
        form = {"name": "the-viewer", "password": "correct horse battery"}
        assert browser.post("/login", data=form | {"next": DEVICE}).headers["location"] == DEVICE
        for elsewhere in ("https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", ""):
            assert browser.post("/login", data=form | {"next": elsewhere}).headers["location"] == "/", elsewhere


def test_wrong_password_is_told_on_the_form_without_saying_what_was_wrong(browsers: dict[str, httpx.Client]) -> None:
    with another(browsers["nobody"], headers={"accept": "text/html"}) as browser:
        wrong, unknown = sign_in(browser, "the-viewer", "x" * 12), sign_in(browser, "eve", "x" * 12)
        assert (wrong.status_code, unknown.status_code) == (401, 401)
        assert "Name or password are wrong." in wrong.text and 'value="the-viewer"' in wrong.text
        assert wrong.text.replace("the-viewer", "eve") == unknown.text


def test_review_is_signed_with_the_name_that_is_signed_in(browsers: dict[str, httpx.Client]) -> None:
    page = browsers["reviewer"].get("/review").text
    assert 'type="hidden" id="reviewer" name="reviewer" value="the-reviewer"' in page
    assert "You are" not in page


def test_audit_log_is_shown_to_operators_with_the_reason_and_who(browsers: dict[str, httpx.Client]) -> None:
    claim = {"device": "box-9", "ttl_s": 60}
    origin = str(browsers["admin"].base_url).rstrip("/")
    assert browsers["admin"].post("/v1/claims", json=claim, headers={"origin": origin}).status_code == 201
    page = browsers["operator"].get("/audit?what=claim_created").text
    assert "claim created" in page and "device box-9" in page and "the-admin" in page
    assert "expires_at 20" in page, "moments are told as such"
    assert "person added" not in page
    assert browsers["viewer"].get("/audit").status_code == 403
    assert 'href="/audit"' not in browsers["viewer"].get("/").text
