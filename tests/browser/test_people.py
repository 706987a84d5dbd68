"""Joining by a link, signing in and out, and making accounts, in a real browser."""

import pytest
from playwright.sync_api import Page, expect

from cloud.roles import Role
from tests.browser.conftest import Journey, watch
from tests.cloud.folk import PASSWORD, person

pytestmark = pytest.mark.browser


def _sign_in(page: Page, name: str, password: str = PASSWORD) -> None:
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in", exact=True).click()


def test_person_joins_by_a_link_signs_out_and_in_again(journey: Journey) -> None:
    invite = journey.plant.services.people.add("ada", Role.REVIEWER, who="test")
    page = journey.page
    journey.open("/review")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    journey.open(invite.path)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("The same again").fill("not quite the same")
    page.get_by_role("button", name="Keep it and sign in").click()
    expect(page.get_by_role("alert").filter(has_text="not the same")).to_be_visible()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.get_by_role("button", name="Keep it and sign in").click()
    expect(page.locator("#whoami")).to_contain_text("ada")
    expect(page.locator("#live")).to_have_attribute("data-live", "on")
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    journey.open("/review")
    _sign_in(page, "ada", "not her password")
    expect(page.get_by_role("alert").filter(has_text="are wrong")).to_be_visible()
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in", exact=True).click()
    expect(page.get_by_role("heading", name="Review")).to_be_visible()
    journey.forgive("status of 422")
    journey.forgive("status of 401")


def test_admin_makes_an_account_changes_its_role_and_removes_it(journey: Journey) -> None:
    person(journey.plant.services, "ada", "admin")
    page, people = journey.page, journey.plant.services.people
    journey.open("/people")
    _sign_in(page, "ada")
    expect(page.get_by_role("heading", name="A new account")).to_be_visible()
    page.get_by_label("Name").fill("bob")
    page.locator("form select[name=role]").select_option("operator")
    page.get_by_role("button", name="Make it").click()
    expect(page.locator("#secret-words")).to_contain_text("Hand this link to bob")
    link = page.locator("#secret-value").inner_text()
    other = page.context.browser.new_page()  # type: ignore[union-attr]
    complaints = watch(other)
    other.goto(link)
    other.get_by_label("Password").fill(PASSWORD)
    other.get_by_label("The same again").fill(PASSWORD)
    other.get_by_role("button", name="Keep it and sign in").click()
    expect(other.locator("#whoami")).to_contain_text("bob")
    page.get_by_label("Role of bob").select_option("viewer")
    expect(page.locator("#toast")).to_contain_text("role of bob is changed")
    assert {one.name: one.role for one in people.everyone()} == {"ada": Role.ADMIN, "bob": Role.VIEWER}
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("tr[data-key=bob]").get_by_role("button", name="Remove").click()
    expect(page.locator("tr[data-key=bob]")).to_have_count(0)
    expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
    assert [line for line in complaints if "status of 401" not in line] == []
    other.close()


def test_person_changes_the_password_and_makes_a_token(journey: Journey) -> None:
    person(journey.plant.services, "ada", "operator")
    page = journey.page
    journey.open("/account")
    _sign_in(page, "ada")
    page.get_by_label("What for").fill("nightly report")
    page.get_by_role("button", name="Make a token").click()
    expect(page.locator("#secret-words")).to_contain_text("Keep this token")
    expect(page.locator("#tokens")).to_contain_text("nightly report")
    page.get_by_role("button", name="Revoke").click()
    expect(page.locator("#tokens")).to_contain_text("You have none")
    page.get_by_label("Present password").fill(PASSWORD)
    page.get_by_label("New password").fill("a quite different one")
    page.get_by_role("button", name="Change it").click()
    expect(page.locator("#toast")).to_contain_text("password is changed")
    page.get_by_role("button", name="Sign out").click()
    _sign_in(page, "ada", "a quite different one")
    expect(page.locator("#whoami")).to_contain_text("ada")
