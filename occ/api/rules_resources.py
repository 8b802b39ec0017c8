"""Catalogue, services and policies: read, checked, put in force."""

import asyncio
from dataclasses import asdict
from typing import Any, Final

from fastapi import Request
from starlette.responses import Response

from balance import broadcast
from balance.store import Store
from balance.tokens import Role
from occ.api.access import router, takes
from occ.api.accounts import BASE
from occ.api.context import context_of
from occ.api.errors import ApiError, not_found
from occ.api.exact_json import ExactResponse
from occ.api.queries import Fields, Limit, Offset, page
from occ.cli_catalogue import catalogue_json
from occ.cli_policy import policies_json
from occ.cli_shell import text_of
from occ.policy.reading import OperatorPolicies, load_policies
from occ.policy.reloading import COMMAND as RELOAD_POLICIES
from occ.policy.watching import rules_in_force
from occ.rating.catalogue import load_catalogue
from occ.reload import COMMAND as RELOAD_CATALOGUE
from occ.reload import Reloaded
from occ.yamlmap import ConfigError

API_WORKER: Final = b"api"

rules = router(BASE, "catalogue and policies")


@rules.get("/catalogue", openapi_extra=takes(Role.VIEWER))
async def show_catalogue(request: Request) -> Response:
    """The catalogue in force: services, plans, prices, allowances, offers."""
    return ExactResponse(_plain(catalogue_json(context_of(request).catalogue)))


@rules.get("/services", openapi_extra=takes(Role.VIEWER))
async def list_services(request: Request, fields: Fields = None, offset: Offset = 0, limit: Limit = 100) -> Response:
    """The services of the catalogue in force."""
    found = _plain(catalogue_json(context_of(request).catalogue)["services"])
    return page(found, offset, limit, fields if fields is None else f"{fields},name")


@rules.get("/services/{service}", openapi_extra=takes(Role.VIEWER))
async def show_service(request: Request, service: str) -> Response:
    """One service, and what it costs in each plan."""
    catalogue = _plain(catalogue_json(context_of(request).catalogue))
    for each in catalogue["services"]:
        if each["name"] == service:
            prices = {plan: sold[service] for plan, sold in catalogue["plans"].items() if service in sold}
            return ExactResponse(each | {"prices": prices})
    raise not_found(f"the catalogue has no service {service[:80]}")


@rules.post("/catalogue/check", openapi_extra=takes(Role.OPERATOR))
async def check_catalogue(request: Request) -> Response:
    """Read the catalogue's file as it stands, without putting it in force, and say what is wrong with it."""
    context = context_of(request)
    try:
        found = await asyncio.to_thread(load_catalogue, context.settings.catalogue)
    except ConfigError as error:
        return ExactResponse({"good": False, "mistake": str(error), "in_force": context.catalogue.edition})
    document = {"good": True, "edition": found.edition, "in_force": context.catalogue.edition}
    return ExactResponse(document | {"remarks": catalogue_json(found)["remarks"]})


@rules.post("/catalogue/reload", openapi_extra=takes(Role.OPERATOR))
async def reload_catalogue(request: Request) -> Response:
    """Have all running servers read the catalogue anew. One that finds a mistake goes on with what it has."""
    return await _reload(context_of(request).store, RELOAD_CATALOGUE)


@rules.get("/policies", openapi_extra=takes(Role.VIEWER))
async def show_policies(request: Request) -> Response:
    """The rules in force: their text, as it was read, and the levels by which accounts are watched."""
    try:
        found = await rules_in_force(context_of(request).store)
    except ValueError as error:
        raise ApiError(503, str(error)) from error
    if found is None:
        return ExactResponse({"edition": None, "text": None, "source": None, "catalogue": None, "levels": []})
    levels = [level.name for level in found.levels]
    document = {"edition": found.edition, "text": found.text, "source": found.source, "catalogue": found.catalogue}
    return ExactResponse(document | {"levels": levels})


@rules.post("/policies/check", openapi_extra=takes(Role.OPERATOR))
async def check_policies(request: Request) -> Response:
    """Read the rules file as it stands, without putting it in force, and say what is wrong with it."""
    context = context_of(request)
    path = context.settings.policies
    if path is None:
        raise ApiError(409, "the settings name no rules file; add a line such as 'policies: policies.yaml'")

    def read() -> OperatorPolicies:
        return load_policies(path, context.catalogue)

    try:
        found = await asyncio.to_thread(read)
    except ConfigError as error:
        return ExactResponse({"good": False, "mistake": str(error)})
    return ExactResponse({"good": True, **_plain(policies_json(found, context.catalogue))})


@rules.post("/policies/reload", openapi_extra=takes(Role.OPERATOR))
async def reload_policies(request: Request) -> Response:
    """Have all running servers read their rules file anew; accounts and sessions are looked at by it right away."""
    return await _reload(context_of(request).store, RELOAD_POLICIES)


async def _reload(store: Store, command: bytes) -> Response:
    replies = [each for each in await broadcast.ask_all(store, command) if each.worker != API_WORKER]
    if not replies:
        raise ApiError(503, "no running server answered; one that starts now reads the file as it is")
    told = [
        {"worker": text_of(each.worker)}
        | ({"result": "unknown"} if each.result is None else _plain(asdict(Reloaded.unpack(each.result))))
        for each in replies
    ]
    good = all(each["result"] in ("done", "unchanged") for each in told)
    return ExactResponse({"in_force": good, "workers": told}, 200 if good else 409)


def _plain(value: Any) -> Any:
    """Data of the catalogue as JSON has it."""
    if isinstance(value, dict):
        return {str(_plain(name)): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(each) for each in value), key=str)
    if isinstance(value, bytes):
        return text_of(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
